package receiver

import (
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// What follows tells Config.Hooks what happens. It is called with no lock held.

// noteAccepted tells of a connection that was welcomed.
func (c *conn) noteAccepted() {
	c.receiver.cfg.Hooks.Accepted(hooks.Accepted{
		Listener: c.receiver.cfg.Address, Peer: netio.PeerText(c.nc.RemoteAddr()), Principal: c.welcomedAs, Agent: c.agent,
	})
}

// noteEnd tells of the end of a connection.
func (c *conn) noteEnd(err error) {
	set := c.receiver.cfg.Hooks
	if set == nil {
		return
	}
	c.mu.Lock()
	welcomed, since := c.welcomed, c.since
	c.mu.Unlock()
	peer, listener := netio.PeerText(c.nc.RemoteAddr()), c.receiver.cfg.Address
	if welcomed {
		set.Lost(hooks.Lost{Address: peer, Listener: listener, Welcomed: true, Lasted: time.Since(since), Err: err})
		return
	}
	if c.refusal != nil {
		err = c.refusal
	}
	if err == nil {
		err = errNotWelcomed
	}
	set.Refused(hooks.Refused{Listener: listener, Peer: peer, Err: netio.Sanitize(err)})
}

var errNotWelcomed = errors.New("buffstreams: the connection was closed before it was welcomed")

// noteReceived counts the messages of a frame, and tells of them.
func (s *stream) noteReceived(f *session.PublishFrame, duplicates int) {
	if duplicates == noneTaken {
		return
	}
	counters, fresh := &s.receiver.counters, len(f.Messages)-duplicates
	counters.received.Add(uint64(fresh))
	if duplicates > 0 {
		counters.duplicates.Add(uint64(duplicates))
	}
	if duplicates > 0 {
		s.receiver.cfg.Logger.Debug("Messages dropped that were received before", watermill.LogFields{
			"provider": netio.Provider, "address": s.receiver.cfg.Address, "topic": netio.Quote(s.id.Topic), "count": duplicates,
		})
	}
	set := s.receiver.cfg.Hooks
	if !set.WatchesReceived() {
		return
	}
	if duplicates > 0 {
		set.Duplicate(hooks.Duplicate{Listener: s.receiver.cfg.Address, Topic: s.id.Topic, Messages: duplicates})
	}
	if fresh > 0 {
		bytes := f.Bytes
		for _, m := range f.Messages[:duplicates] {
			bytes -= session.EncodedSize(len(m))
		}
		set.Received(hooks.Received{Listener: s.receiver.cfg.Address, Topic: s.id.Topic, Messages: fresh, Bytes: bytes})
	}
}

// noteForgottenLocked has tellForgotten tell of streams that were forgotten, or whose publishers return. The caller
// must hold the Receiver's mu.
func (r *Receiver) noteForgottenLocked(streams int, returned bool) {
	if r.cfg.Hooks != nil {
		r.forgotHooks = append(r.forgotHooks, hooks.Forgotten{Listener: r.cfg.Address, Streams: streams, Returned: returned})
	}
}

// tellForgotten tells of what was forgotten.
func (r *Receiver) tellForgotten() {
	if r.cfg.Hooks == nil {
		return
	}
	r.mu.Lock()
	events := r.forgotHooks
	r.forgotHooks = nil
	r.mu.Unlock()
	for _, e := range events {
		r.cfg.Hooks.Forgotten(e)
	}
}
