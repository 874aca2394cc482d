package receiver

import (
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// logEnd logs that a connection has ended with an error: of a host whose connections do that again and again, once a
// minute with a count.
func (r *Receiver) logEnd(c *conn, err error) {
	fields := watermill.LogFields{
		"provider": netio.Provider, "address": r.cfg.Address, "peer": netio.PeerText(c.nc.RemoteAddr()),
		"err": netio.Printable(err.Error()),
	}
	count, ok := r.ends.Say(c.host)
	if !ok {
		r.cfg.Logger.Debug("Connection ended", fields)
		return
	}
	if count > 1 {
		fields["count"] = count // from this host since the line before
	}
	r.cfg.Logger.Info("Connection ended", fields)
}

// logAccept logs that no connection can be accepted, once a minute while that goes on.
func (r *Receiver) logAccept(err error, delay time.Duration) {
	if count, ok := r.failures.Say(); ok {
		r.cfg.Logger.Error("Cannot accept a connection", err, watermill.LogFields{
			"provider": netio.Provider, "address": r.cfg.Address, "delay": delay, "count": count,
		})
	}
}
