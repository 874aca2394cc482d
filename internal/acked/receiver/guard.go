package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// ErrUnavailable is what the Authenticate and Authorize hooks return, wrapped or not, when they cannot decide now: the
// peer tries again later, as it would not after a refusal.
var ErrUnavailable = errors.New("buffstreams: cannot be decided now")

// Peer describes a peer that has to be authenticated.
type Peer struct {
	Address net.Addr
	TLS     *tls.ConnectionState // nil without TLS
	Token   string               // empty if the peer sent none
	Agent   string               // the peer's name for its software
}

// Access describes a peer that wants to publish to a topic.
type Access struct {
	Principal string
	Topic     string
	Address   net.Addr
}

// Guard calls the Authenticate and Authorize hooks, in the goroutine of its caller, which the hooks may block. A hook
// that panics has refused. It is safe for concurrent use if the hooks are.
type Guard struct {
	authenticate func(context.Context, Peer) (string, error)
	authorize    func(context.Context, Access) error
	timeout      time.Duration
	logger       watermill.LoggerAdapter
	address      string
	quiet        *netio.QuietBy // by host
}

// NewGuard returns the Guard of a listener, for which cfg has the hooks, HandshakeTimeout, Logger and Address.
func NewGuard(cfg Config) Guard {
	return Guard{cfg.Authenticate, cfg.Authorize, cfg.HandshakeTimeout, cfg.Logger, cfg.Address, &netio.QuietBy{}}
}

// Admit authenticates a peer: it returns its principal, which is empty without a hook, or why it is refused. The text
// of the hook's error goes to the log only: a stranger learns no more than that it is refused.
func (g *Guard) Admit(ctx context.Context, p Peer) (principal string, refused *session.PeerError) {
	if g.authenticate == nil {
		return "", nil
	}
	principal, err := hook.CallWithin(ctx, "AckedConfig.Authenticate", func() (string, error) { return g.authenticate(ctx, p) }, nil)
	if err == nil && principal == "" {
		err = errors.New("Authenticate returned neither a principal nor an error") //nolint:staticcheck // a name
	}
	if err == nil {
		return principal, nil
	}
	g.log("A peer was not authenticated", err, p.Address, nil)
	if undecided(ctx, err) {
		return "", session.NewPeerError(wire.Code_CODE_LIMIT, "authentication is not available now")
	}
	return "", session.NewPeerError(wire.Code_CODE_UNAUTHENTICATED, "the token or certificate was refused")
}

// Allow returns nil if a peer may publish to a topic, or why not.
func (g *Guard) Allow(ctx context.Context, a Access) *session.PeerError {
	authorize := g.authorize
	if authorize == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	_, err := hook.CallWithin(ctx, "AckedConfig.Authorize", func() (struct{}, error) { return struct{}{}, authorize(ctx, a) }, nil)
	if err == nil {
		return nil
	}
	g.log("A peer may not publish", err, a.Address, watermill.LogFields{
		"principal": fmt.Sprintf("%.100q", a.Principal), "topic": fmt.Sprintf("%.100q", a.Topic),
	})
	if undecided(ctx, err) {
		return session.NewPeerError(wire.Code_CODE_LIMIT, "authorization is not available now")
	}
	return session.NewPeerError(wire.Code_CODE_FORBIDDEN, "this principal may not publish to the topic")
}

// undecided tells whether a hook has failed rather than refused.
func undecided(ctx context.Context, err error) bool {
	return errors.Is(err, ErrUnavailable) || ctx.Err() != nil
}

func (g *Guard) log(msg string, err error, peer net.Addr, more watermill.LogFields) {
	fields := watermill.LogFields{
		"provider": netio.Provider, "address": g.address, "peer": netio.PeerText(peer), "err": netio.Printable(err.Error()),
	}
	count, ok := g.quiet.Say(netio.HostOf(peer))
	if !ok {
		g.logger.Debug(msg, fields.Add(more))
		return
	}
	if count > 1 {
		fields["count"] = count // from this host since the line before
	}
	g.logger.Info(msg, fields.Add(more))
}
