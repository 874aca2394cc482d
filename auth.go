package buffstreams

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/receiver"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
)

// Peer is who asks to be let in, as an Authenticate hook sees it.
type Peer struct {
	// Address is where the connection comes from.
	Address net.Addr
	// TLS is nil on a connection without it.
	TLS *tls.ConnectionState
	// Token is what the peer sent; empty if it sent none, as plain BuffStreams peers do. Compare it in constant time,
	// or use Tokens, and never log it.
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
	// ActionPublish: a peer wants to send to the topic. It is asked whenever a peer opens a stream, so once for each
	// topic and connection; on the plain wire once for each connection, with an empty topic.
	ActionPublish Action = iota + 1
	// ActionSubscribe: this process wants to receive from the topic, at a listener of its own. No peer can ask for
	// messages: they only come to who listens.
	ActionSubscribe
)

// String is "publish" or "subscribe".
func (a Action) String() string {
	switch a {
	case ActionPublish:
		return "publish"
	case ActionSubscribe:
		return "subscribe"
	}
	return fmt.Sprintf("action %d", int(a))
}

// Access is what an Authorize hook allows or refuses.
type Access struct {
	Action Action
	// Principal is who the peer is, from Authenticate; empty without that hook, and for ActionSubscribe.
	Principal string
	// Topic is the name that travels on the wire. A peer chose it: quote it before it is logged.
	Topic string
	// Address is where the peer's connection comes from; nil for ActionSubscribe.
	Address net.Addr
}

// authenticate is the hook as the receivers call it.
func (c *AckedConfig) authenticate() func(context.Context, receiver.Peer) (string, error) {
	if c.Authenticate == nil {
		return nil
	}
	return func(ctx context.Context, p receiver.Peer) (string, error) { return c.Authenticate(ctx, Peer(p)) }
}

// authorize is the hook as the receivers call it.
func (c *AckedConfig) authorize() func(context.Context, receiver.Access) error {
	if c.Authorize == nil {
		return nil
	}
	return func(ctx context.Context, a receiver.Access) error {
		return c.Authorize(ctx, Access{Action: ActionPublish, Principal: a.Principal, Topic: a.Topic, Address: a.Address})
	}
}

const nameAuthorize = "AckedConfig.Authorize"

// allowSubscribe asks the Authorize hook whether this process may subscribe to a topic. The error matches ErrForbidden
// and wraps the hook's.
func (m *Manager) allowSubscribe(topic string) error {
	authorize := m.cfg.Acked.Authorize
	if authorize == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), m.cfg.Acked.HandshakeTimeout)
	defer cancel()
	_, err := hook.CallWithin(ctx, nameAuthorize, func() (struct{}, error) {
		return struct{}{}, authorize(ctx, Access{Action: ActionSubscribe, Topic: topic})
	}, nil)
	if err != nil {
		return fmt.Errorf("%w: AckedConfig.Authorize refuses to subscribe to %.100q: %w", ErrForbidden, topic, err)
	}
	return nil
}

// The reasons for which the hooks below refuse. The peer is not told.
var (
	errNoToken       = errors.New("buffstreams: no token was sent")
	errUnknownToken  = errors.New("buffstreams: unknown token")
	errNoCertificate = errors.New("buffstreams: no verified client certificate: set ClientCAs and ClientAuth in ServerTLS")
	errNoName        = errors.New("buffstreams: the client certificate has no common name")
)

// Tokens returns an Authenticate hook for a fixed set of tokens, each with the principal that it stands for. It keeps
// only their hashes, and compares in a time that tells nothing of them. An empty token never matches.
func Tokens(principals map[string]string) func(context.Context, Peer) (string, error) {
	type entry struct {
		hash      [sha256.Size]byte
		principal string
	}
	entries := make([]entry, 0, len(principals))
	for token, principal := range principals {
		if token != "" {
			entries = append(entries, entry{sha256.Sum256([]byte(token)), principal})
		}
	}
	return func(_ context.Context, p Peer) (string, error) {
		if p.Token == "" {
			return "", errNoToken
		}
		hash, found := sha256.Sum256([]byte(p.Token)), -1
		for i := range entries { // all of them, whichever matches
			found = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(hash[:], entries[i].hash[:]), i, found)
		}
		if found < 0 {
			return "", errUnknownToken
		}
		return entries[found].principal, nil
	}
}

// CertificateName is an Authenticate hook: the principal is the common name of the peer's verified certificate.
func CertificateName(_ context.Context, p Peer) (string, error) {
	certificate := p.Certificate()
	if certificate == nil {
		return "", errNoCertificate
	}
	if certificate.Subject.CommonName == "" {
		return "", errNoName
	}
	return certificate.Subject.CommonName, nil
}

// StaticToken returns an AckedConfig.Token that gives the same token to the peers at the given addresses (host:port,
// tls://host:port or unix:///path), and none to others. With no addresses it gives it to all.
func StaticToken(token string, addresses ...string) func(context.Context, string) (string, error) {
	allowed := map[string]bool{}
	for _, address := range addresses {
		if target, err := parseAddress(address); err == nil { // what is no address is never dialed
			allowed[formatAddress(target)] = true
		}
	}
	return func(_ context.Context, address string) (string, error) {
		if len(addresses) == 0 || allowed[address] {
			return token, nil
		}
		return "", nil
	}
}
