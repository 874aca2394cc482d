package pool

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Target says where to dial or listen.
type Target struct {
	Network string // "tcp" or "unix"
	Address string // host:port or path
	TLS     bool
}

// AckedConfig configures the acked protocol for all links and endpoints of a Manager. The zero value is valid.
type AckedConfig struct {
	// MaxMessageSize is the limit of one encoded message in bytes; 0 means 1 MiB.
	MaxMessageSize int
	// WindowMessages and WindowBytes bound what each end keeps per topic; 0 means 16,384 and 16 MiB.
	WindowMessages, WindowBytes int
	// MemoryLimit bounds in bytes what all topics of all endpoints hold together, and as much again what all links keep;
	// 0 means 256 MiB. Besides, a busy process holds 16 MiB in reserve, so that the garbage collector runs less often, unless
	// GOMEMLIMIT is below 512 MiB.
	MemoryLimit int
	// ClientTLS is used for tls:// addresses that are dialed, ServerTLS for those that are listened at. Both speak TLS 1.3
	// or later, whatever their MinVersion; a listener resumes no sessions. Certificates that come from GetCertificate,
	// GetConfigForClient or GetClientCertificate are asked for at every handshake; TLSFiles makes such configurations of
	// files. ServerTLS with ClientAuth tls.RequireAndVerifyClientCert makes it mutual.
	ClientTLS, ServerTLS *tls.Config
	// Insecure permits plaintext at an address that is not loopback, and Token to be sent over plaintext or to a peer whose
	// certificate is not verified.
	Insecure bool

	// Authenticate tells who a peer is that connects to an endpoint, from its certificate or token: see Tokens and
	// CertificateName. Publisher ids then belong to their principal. An error refuses the connection, and is logged here but
	// not told to the peer; one that wraps ErrUnavailable makes the peer come back. ctx ends with HandshakeTimeout. It is
	// called concurrently. Nil means that everybody who can connect is let in.
	Authenticate func(ctx context.Context, p Peer) (principal string, err error)
	// Authorize allows (nil) or refuses what a principal, or this process, does with a topic: see Action. Errors are treated
	// as those of Authenticate. The connection that it is about is not read meanwhile, so it should be quick; ctx ends after
	// HandshakeTimeout. It is called concurrently. Nil means that everything is allowed.
	Authorize func(ctx context.Context, a Access) error
	// Token returns what to show to the Authenticate hook at t, or an empty string for nothing: see StaticToken. It is called
	// for every connection, so that tokens can be renewed. Mind that t can come from a topic: a token for all targets goes to
	// whichever the application publishes to. One that would go over plaintext TCP is refused (*InsecureTokenError) unless
	// Insecure is set. At most 3 KiB.
	Token func(ctx context.Context, t Target) (string, error)
	// Groups declares the consumer groups of topics, by topic: no credit is given before all of them exist, so that a
	// restarted process gives none of them less than it confirmed.
	Groups map[string][]string
	// Dedupe remembers across restarts what was settled. Nil means that this lives as long as the listener.
	Dedupe store.DedupeStore

	// HandshakeTimeout bounds connecting, TLS and greeting; 0 means 5 s.
	HandshakeTimeout time.Duration
	// WriteTimeout is how long the socket may take for one write before the connection counts as broken; 0 means 10 s.
	WriteTimeout time.Duration
	// PingAfter is the silence after which a peer is pinged, DeadAfter that after which it is given up; 0 means 10 s
	// and 30 s.
	PingAfter, DeadAfter time.Duration
	// ForgetAfter is how long an idle stream, and the name of an ephemeral topic that ended, are remembered; 0 means 5 min.
	ForgetAfter time.Duration
	// Retry says how a link comes back. Its MaxAttempts is of no meaning: a link never gives up. Nil means
	// DefaultRetryConfig.
	Retry *RetryConfig

	// MaxConnections, MaxTopics, MaxPublishers and MaxStreams bound what one endpoint keeps; 0 means 16,384 connections and
	// 65,536 of each of the others. A stream is one publisher's flow to one topic. MaxConnectionsPerHost bounds the
	// connections from one IP address, or one /64 of IPv6; 0 means a quarter of MaxConnections, Unlimited none. Who comes
	// when a bound is reached is told so, and can come back.
	MaxConnections, MaxConnectionsPerHost, MaxTopics, MaxPublishers, MaxStreams int
}

func (c *AckedConfig) setDefaults() {
	setDefault(&c.MaxMessageSize, 1<<20)
	setDefault(&c.WindowMessages, 16384)
	setDefault(&c.WindowBytes, 16<<20)
	setDefault(&c.MemoryLimit, 256<<20)
	setDefault(&c.HandshakeTimeout, defaultHandshakeTimeout)
	setDefault(&c.WriteTimeout, defaultWriteTimeout)
	setDefault(&c.PingAfter, 10*time.Second)
	setDefault(&c.DeadAfter, 30*time.Second)
	setDefault(&c.ForgetAfter, 5*time.Minute)
	setDefault(&c.MaxConnections, 16384)
	setDefault(&c.MaxConnectionsPerHost, max(1, c.MaxConnections/4))
	setDefault(&c.MaxTopics, 65536)
	setDefault(&c.MaxPublishers, 65536)
	setDefault(&c.MaxStreams, 65536)
	retry := RetryConfig{}
	if c.Retry != nil {
		retry = *c.Retry
	}
	retry.setDefaults()
	c.Retry = &retry
}

// Validate names the first field that cannot work.
func (c AckedConfig) Validate() error {
	c.setDefaults()
	const name = "AckedConfig."
	if err := c.validateTrust(); err != nil {
		return err
	}
	switch largest := session.EncodedSize(c.MaxMessageSize); {
	case c.MaxMessageSize < 0 || c.MaxMessageSize > 1<<30:
		return configError(name+"MaxMessageSize", "%d is not between 1 and 1 GiB", c.MaxMessageSize)
	case c.WindowMessages < 1:
		return configError(name+"WindowMessages", "%d is not positive", c.WindowMessages)
	case c.WindowBytes < largest:
		return configError(name+"WindowBytes", "%d has no room for one message of MaxMessageSize: it takes %d", c.WindowBytes, largest)
	case c.MemoryLimit < c.WindowBytes:
		return configError(name+"MemoryLimit", "%d is less than WindowBytes %d", c.MemoryLimit, c.WindowBytes)
	case c.DeadAfter <= c.PingAfter:
		return configError(name+"DeadAfter", "%v must be more than PingAfter %v", c.DeadAfter, c.PingAfter)
	case c.HandshakeTimeout < 0 || c.WriteTimeout < 0 || c.PingAfter < 0 || c.ForgetAfter < 0:
		return configError(name+"HandshakeTimeout, WriteTimeout, PingAfter, ForgetAfter", "must not be negative")
	}
	return c.Retry.validate()
}

// validateTrust is the part of Validate that is about strangers.
func (c *AckedConfig) validateTrust() error {
	const name = "AckedConfig."
	if err := checkTLS(name+"ClientTLS", c.ClientTLS); err != nil {
		return err
	}
	if err := checkTLS(name+"ServerTLS", c.ServerTLS); err != nil {
		return err
	}
	switch {
	case c.Token != nil && !c.Insecure && !verifies(c.ClientTLS):
		return configError(name+"Token", "ClientTLS has InsecureSkipVerify: anybody could pose as the peer and get the token; verify, or set Insecure")
	case min(c.MaxConnections, c.MaxTopics, c.MaxPublishers, c.MaxStreams) < 0:
		return configError(name+"MaxConnections, MaxTopics, MaxPublishers, MaxStreams", "must not be negative")
	case c.MaxConnectionsPerHost < Unlimited:
		return configError(name+"MaxConnectionsPerHost", "%d is negative; use Unlimited for none", c.MaxConnectionsPerHost)
	}
	return nil
}

// ackedCodec frames what carries messages of up to maxMessage bytes: four bytes of length, big-endian.
func ackedCodec(maxMessage int) (framing.Codec, error) {
	return framing.NewFixed(4, binary.BigEndian, session.MaxFrame(maxMessage))
}

// greetingCodec frames what a peer may send before it was welcomed.
func greetingCodec() (framing.Codec, error) { return framing.NewFixed(4, binary.BigEndian, 4<<10) }

// acked is the part of a Manager that speaks the acked protocol.
//
// mu guards the maps and closed; it is not held while anything is opened or closed.
type acked struct {
	cfg     AckedConfig
	manager ManagerConfig
	streams atomic.Uint64 // the number given last
	held    *flow.Budget  // by the endpoints
	kept    *flow.Budget  // by the links
	crew    *crew         // of all flushers
	clock   *clock        // of all links
	stop    chan struct{}
	wg      sync.WaitGroup

	mu        sync.Mutex
	links     map[Target]*Link
	endpoints map[Target]*opening
	ticking   bool
	closed    bool
}

// opening is an endpoint that is there, or will be when done is closed.
type opening struct {
	done     chan struct{}
	endpoint *Endpoint
	err      error
}

// Refused is a message that the peer settled without handling it.
type Refused = session.Refused

func newAcked(cfg ManagerConfig) *acked {
	buffers.Join() // until close
	a := &acked{
		cfg: cfg.Acked, manager: cfg, crew: newCrew(), stop: make(chan struct{}),
		links: map[Target]*Link{}, endpoints: map[Target]*opening{},
	}
	a.cfg.setDefaults()
	a.clock = newClock(a.cfg.PingAfter)
	a.held, a.kept = flow.NewBudget(a.cfg.MemoryLimit), flow.NewBudget(a.cfg.MemoryLimit)
	return a
}

// newIdentity is a link's: a receiver that shared it with another could pose as this side there.
func newIdentity() session.Identity {
	id := session.Identity{Epoch: 1}
	_, _ = rand.Read(id.Publisher[:]) // never fails: see crypto/rand
	_, _ = rand.Read(id.Secret[:])
	return id
}

// Link returns the link to a target, and makes it where there is none. It belongs to the Manager.
func (m *Manager) Link(t Target) (*Link, error) { return m.acked.link(t) }

// Endpoint returns the endpoint at a target, and opens it where there is none. It belongs to the Manager, and lives until
// CloseEndpoint or Close.
func (m *Manager) Endpoint(t Target) (*Endpoint, error) { return m.acked.endpoint(t) }

// CloseEndpoint closes the endpoint at a target, if there is one. Its publishers keep what was not handled.
func (m *Manager) CloseEndpoint(ctx context.Context, t Target) error {
	return m.acked.closeEndpoint(ctx, t)
}

// MaxMessageSize is the limit of one encoded message on the acked protocol, in bytes.
func (m *Manager) MaxMessageSize() int { return m.acked.cfg.MaxMessageSize }

// PlainEndpoint returns the endpoint for plain BuffStreams peers at a target, and opens it where there is none. It has
// one topic, whose name is empty; a full window holds back the peers through TCP.
func (m *Manager) PlainEndpoint(t Target, maxMessageSize int) (*Endpoint, error) {
	return m.acked.open(t, func() (*Endpoint, error) { return m.newPlainEndpoint(t, maxMessageSize) })
}

func (a *acked) link(t Target) (*Link, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, ErrClosed
	}
	l := a.links[t]
	if l != nil {
		return l, nil
	}
	if a.manager.direct {
		if err := a.manager.DialAllow.literal(t); err != nil {
			return nil, err
		}
	}
	cfg, err := a.linkConfig(t)
	if err != nil {
		return nil, err
	}
	l = newLink(cfg)
	a.links[t] = l
	if !a.ticking {
		a.ticking = true
		a.wg.Go(func() { a.clock.run(a.stop, a.tick) }) // ends when stop is closed
	}
	return l, nil
}

func (a *acked) linkConfig(t Target) (linkConfig, error) {
	cfg := linkConfig{
		AckedConfig: a.cfg, target: t, dial: a.manager.Dial, identity: newIdentity(),
		nextStream: func() uint64 { return a.streams.Add(1) }, budget: a.kept, crew: a.crew, clock: a.clock, logger: a.manager.Logger,
	}
	if !t.TLS {
		return cfg, nil
	}
	var err error
	cfg.tls, err = clientTLS(a.cfg.ClientTLS, t.Address)
	return cfg, err
}

// tick keeps the links' time.
func (a *acked) tick(now time.Time) (busy bool) {
	for _, l := range a.allLinks() {
		busy = l.tick(now) || busy
	}
	return busy
}

func (a *acked) allLinks() []*Link {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Collect(maps.Values(a.links))
}

func (a *acked) endpoint(t Target) (*Endpoint, error) {
	return a.open(t, func() (*Endpoint, error) { return a.listen(t) })
}

// open returns the endpoint at a target. The first caller builds it, others wait for that.
func (a *acked) open(t Target, build func() (*Endpoint, error)) (*Endpoint, error) {
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil, ErrClosed
	}
	if o := a.endpoints[t]; o != nil {
		a.mu.Unlock()
		<-o.done
		return o.endpoint, o.err
	}
	o := &opening{done: make(chan struct{})}
	a.endpoints[t] = o
	a.mu.Unlock()
	o.endpoint, o.err = build()
	close(o.done)
	if o.err != nil {
		a.mu.Lock()
		delete(a.endpoints, t)
		a.mu.Unlock()
	}
	return o.endpoint, o.err
}

func (a *acked) listen(t Target) (*Endpoint, error) {
	cfg := endpointConfig{AckedConfig: a.cfg, target: t, budget: a.held, crew: a.crew, logger: a.manager.Logger}
	switch {
	case t.TLS && a.cfg.ServerTLS == nil:
		return nil, configError("AckedConfig.ServerTLS", "is needed to listen at tls://%s", t.Address)
	case t.TLS:
		cfg.tls = serverTLS(a.cfg.ServerTLS)
	case !a.cfg.Insecure && reachableFromOutside(t.Network, t.Address):
		return nil, &InsecureAddressError{Address: t.Address}
	}
	ln, err := a.manager.Listen(t.Network, t.Address)
	if err != nil {
		return nil, err
	}
	if !t.TLS && !a.cfg.Insecure && boundOutside(ln.Addr()) {
		return nil, errors.Join(&InsecureAddressError{Address: t.Address}, ln.Close())
	}
	return newEndpoint(cfg, ln)
}

func (a *acked) closeEndpoint(ctx context.Context, t Target) error {
	a.mu.Lock()
	o := a.endpoints[t]
	delete(a.endpoints, t)
	a.mu.Unlock()
	if o == nil {
		return ErrNotOpened
	}
	<-o.done
	if o.err != nil {
		return ErrNotOpened
	}
	return o.endpoint.Close(ctx)
}

// close closes every endpoint, then every link.
func (a *acked) close(ctx context.Context) error {
	a.mu.Lock()
	first := !a.closed
	a.closed = true
	var targets []Target
	for t := range a.endpoints {
		targets = append(targets, t)
	}
	a.mu.Unlock()
	if first {
		close(a.stop)
	}
	var errs []error
	for _, t := range targets {
		if err := a.closeEndpoint(ctx, t); err != nil && !errors.Is(err, ErrNotOpened) {
			errs = append(errs, err)
		}
	}
	for _, l := range a.allLinks() {
		l.close()
	}
	a.wg.Wait()
	if first {
		a.crew.close()
		buffers.Leave()
	}
	return errors.Join(errs...)
}

func (c AckedConfig) newBackoff() backoff.BackOff { return c.Retry.BackOff() }
