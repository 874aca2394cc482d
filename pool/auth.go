package pool

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// ErrUnavailable is for Authenticate and Authorize hooks to return, wrapped or not, when they cannot decide now: the peer is
// told to come back instead of that it is refused.
var ErrUnavailable = errors.New("pool: cannot be decided now")

// ErrForbidden is matched by the *PeerError of a stream that the receiver's Authorize hook refused, and by the error of a
// local subscription that it refused.
var ErrForbidden = session.ErrForbidden

// ErrUnauthenticated is matched by the *PeerError of a listener whose Authenticate hook refused this side.
var ErrUnauthenticated = session.ErrUnauthenticated

// Peer is who asks to be let in, as an Authenticate hook sees it.
type Peer struct {
	// Address is where the connection comes from.
	Address net.Addr
	// TLS is nil on a connection without it.
	TLS *tls.ConnectionState
	// Token is what the peer sent; empty if it sent none, as plain BuffStreams peers do. Compare it in constant time, or
	// use Tokens, and never log it.
	Token string
	// Agent is the peer's own name for its software: quote it before it is logged.
	Agent string
}

// Certificate is the peer's certificate if it was verified against the ClientCAs of the TLS configuration, else nil.
func (p Peer) Certificate() *x509.Certificate {
	if p.TLS == nil || len(p.TLS.VerifiedChains) == 0 || len(p.TLS.PeerCertificates) == 0 {
		return nil
	}
	return p.TLS.PeerCertificates[0]
}

// Action is what an Authorize hook is asked about.
type Action int

// The actions.
const (
	// Publish: a peer wants to send to the topic. It is asked whenever a peer opens a stream, so once for each topic and
	// connection; on the plain wire once for each connection, with an empty topic.
	Publish Action = iota + 1
	// Subscribe: this process wants to receive from the topic, at an endpoint of its own. No peer can ask for messages: they
	// only come to who listens.
	Subscribe
)

// String is "publish" or "subscribe".
func (a Action) String() string {
	switch a {
	case Publish:
		return "publish"
	case Subscribe:
		return "subscribe"
	}
	return fmt.Sprintf("action %d", int(a))
}

// Access is what an Authorize hook allows or refuses.
type Access struct {
	Action Action
	// Principal is who the peer is, from Authenticate; empty without that hook, and for Subscribe.
	Principal string
	// Topic is the name that travels on the wire. A peer chose it: quote it before it is logged.
	Topic string
	// Address is where the peer's connection comes from; nil for Subscribe.
	Address net.Addr
}

// guard runs the hooks of one endpoint.
type guard struct {
	authenticate func(context.Context, Peer) (string, error)
	authorize    func(context.Context, Access) error
	timeout      time.Duration
	logger       watermill.LoggerAdapter
	address      string
}

func newGuard(cfg *AckedConfig, t Target, logger watermill.LoggerAdapter) guard {
	return guard{cfg.Authenticate, cfg.Authorize, cfg.HandshakeTimeout, logger, t.Address}
}

// admit tells who a peer is. The hook's own words stay here: a stranger learns no more than that it is refused.
func (g *guard) admit(ctx context.Context, p Peer) (principal string, refused *session.PeerError) {
	if g.authenticate == nil {
		return "", nil
	}
	err := call(func() (err error) {
		if principal, err = g.authenticate(ctx, p); err == nil && principal == "" {
			err = errors.New("pool: Authenticate returned neither a principal nor an error")
		}
		return err
	})
	if err == nil {
		return principal, nil
	}
	g.log("A peer was not authenticated", err, p.Address, nil)
	if undecided(ctx, err) {
		return "", &session.PeerError{Code: wire.Code_CODE_LIMIT, Reason: "authentication is not available now"}
	}
	return "", &session.PeerError{Code: wire.Code_CODE_UNAUTHENTICATED, Reason: "the token or certificate was refused"}
}

// allow asks whether a peer may publish to a topic.
func (g *guard) allow(ctx context.Context, a Access) *session.PeerError {
	if g.authorize == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	err := call(func() error { return g.authorize(ctx, a) })
	if err == nil {
		return nil
	}
	g.log("A peer may not publish", err, a.Address, watermill.LogFields{
		"principal": fmt.Sprintf("%.100q", a.Principal), "topic": fmt.Sprintf("%.100q", a.Topic),
	})
	if undecided(ctx, err) {
		return &session.PeerError{Code: wire.Code_CODE_LIMIT, Reason: "authorization is not available now"}
	}
	return &session.PeerError{Code: wire.Code_CODE_FORBIDDEN, Reason: "this principal may not publish to the topic"}
}

// Allows asks the Authorize hook whether this process may subscribe a topic here. The error matches ErrForbidden and wraps
// the hook's.
func (e *Endpoint) Allows(topic string) error {
	if e.cfg.Authorize == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(e.ctx, e.cfg.HandshakeTimeout)
	defer cancel()
	if err := call(func() error { return e.cfg.Authorize(ctx, Access{Action: Subscribe, Topic: topic}) }); err != nil {
		return fmt.Errorf("%w: AckedConfig.Authorize refuses to subscribe %.100q: %w", ErrForbidden, topic, err)
	}
	return nil
}

// undecided tells a hook that failed from one that refused.
func undecided(ctx context.Context, err error) bool {
	return errors.Is(err, ErrUnavailable) || ctx.Err() != nil
}

// call runs a hook. One that panics has refused.
func call(hook func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("pool: the hook panicked: %v", p)
		}
	}()
	return hook()
}

func (g *guard) log(msg string, err error, peer net.Addr, more watermill.LogFields) {
	fields := watermill.LogFields{
		"provider": provider, "address": g.address, "peer": peerText(peer), "err": printable(err.Error()),
	}
	g.logger.Info(msg, fields.Add(more))
}
