package buffstreams

import (
	"cmp"
	"context"
	"crypto/tls"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// ManagerConfig configures a Manager. The zero value is valid.
type ManagerConfig struct {
	// Dial and Listen stand between the Manager and the network: a proxy, a test, or a socket that was handed over. Nil
	// means package net. Dial must respect its context.
	Dial   pool.DialFunc
	Listen pool.ListenFunc
	// DialAllow limits where everything of this Manager connects to, also through Dial. Nil means no limit. Set it
	// where topics or routes come from elsewhere than the configuration.
	DialAllow *pool.DialAllow
	// Logger takes what no caller is told of. It can be called with locks held: it must not block, nor call the
	// library. A panic is ignored. Nil means watermill.NopLogger.
	Logger watermill.LoggerAdapter
	// CloseTimeout bounds how long Close waits for what is on its way; 0 means 5 s.
	CloseTimeout time.Duration
	// OnFailure is called for each message that was confirmed, or handed to the Manager by a Publisher that closed, and
	// that Close leaves undelivered; err is ErrUndelivered. It is called too, with a *PeerError, for each message that
	// a peer refuses while no Publisher to that address has an OnFailure, as when its Publisher has closed; and, with
	// the reason, for each message that a Subscriber without an OnFailure rejects while its publisher is gone. It is
	// called from one goroutine, with no lock held; Close waits for it.
	OnFailure func(topic string, encoded []byte, err error)
	// Ready holds back every topic that is listened for until it is closed: publishers wait, so that a start or restart
	// with many subscriptions loses nothing for the last of them. A Router's Running fits. Nil means that a topic is
	// open as soon as it has a subscription.
	Ready <-chan struct{}
	// Hooks are told what happens: see package hooks. Each has to implement at least one interface of that package. On
	// the plain wire they are told of connections at both ends, and what subscriptions do; not of what is sent and
	// received.
	Hooks []hooks.Hook
	// Acked configures the acked protocol.
	Acked AckedConfig
}

func (c *ManagerConfig) setDefaults() {
	c.Logger = hook.Logger(c.Logger)
	if c.Listen == nil {
		c.Listen = netio.Listen
	}
	c.CloseTimeout = cmp.Or(c.CloseTimeout, DefaultCloseTimeout)
	c.Acked.setDefaults()
}

// dial is the function that connects: within DialAllow, if there is one.
func (c *ManagerConfig) dial() netio.Dial {
	switch {
	case c.DialAllow != nil:
		return (*netio.DialAllow)(c.DialAllow).Guard(c.Dial)
	case c.Dial != nil:
		return c.Dial
	}
	return (&netio.Dialer{}).DialContext
}

// Validate names the first field that cannot work.
func (c ManagerConfig) Validate() error {
	if err := (*netio.DialAllow)(c.DialAllow).Validate(); err != nil {
		return configError("ManagerConfig.DialAllow", "%w", err)
	}
	if c.CloseTimeout < 0 {
		return configError("ManagerConfig.CloseTimeout", "%v is negative", c.CloseTimeout)
	}
	for i, h := range c.Hooks {
		if !hook.Implemented(h) {
			return configError("ManagerConfig.Hooks", "hook %d, a %T, implements no interface of package hooks", i, h)
		}
	}
	return c.Acked.Validate()
}

// Unlimited as AckedConfig.MaxConnectionsPerHost sets no limit.
const Unlimited = -1

// AckedConfig configures the acked protocol for everything of a Manager. The zero value is valid.
type AckedConfig struct {
	// MaxMessageSize is the limit of one encoded message in bytes; 0 means 1 MiB.
	MaxMessageSize int
	// WindowMessages and WindowBytes bound what each end keeps per topic; 0 means 16,384 and 16 MiB.
	WindowMessages, WindowBytes int
	// MemoryLimit bounds in bytes what all topics that are listened for hold together, and as much again what is kept
	// of all topics that are published to; 0 means 256 MiB. Topics without subscriptions, and peers that are away,
	// together get half of it; the last eighth, and at least a message of MaxMessageSize, is for topics that hold
	// little.
	MemoryLimit int
	// ClientTLS is used for tls:// addresses that are dialed, ServerTLS for those that are listened at. Both speak TLS
	// 1.3 or later, whatever their MinVersion; a listener resumes no sessions. Certificates that come from
	// GetCertificate, GetConfigForClient or GetClientCertificate are asked for at every handshake; TLSFiles makes such
	// configurations of files. ServerTLS with ClientAuth tls.RequireAndVerifyClientCert makes it mutual.
	ClientTLS, ServerTLS *tls.Config
	// Insecure permits plaintext at an address that is not loopback, and Token to be sent over plaintext or to a peer
	// whose certificate is not verified.
	Insecure bool

	// Authenticate tells who a connecting peer is, from its certificate or token: see Tokens and CertificateName.
	// Publisher ids then belong to their principal. An error refuses the connection, and is logged here but not told to
	// the peer; one that wraps ErrUnavailable makes the peer come back. ctx ends with HandshakeTimeout. It is called
	// concurrently, each time on a goroutine of its own. Nil lets every peer in that can connect.
	Authenticate func(ctx context.Context, p Peer) (principal string, err error)
	// Authorize allows (nil) or refuses what a principal, or this process, does with a topic: see Action. Errors are
	// treated as those of Authenticate. The connection that it is about is not read meanwhile, so it should be quick;
	// ctx ends after HandshakeTimeout. It is called concurrently. Nil means that everything is allowed.
	Authorize func(ctx context.Context, a Access) error
	// Token returns what to show to the Authenticate hook of the peer at an address, which has the form of an address
	// topic without a name ("host:port", "tls://host:port", "unix:///path"), or an empty string for nothing: see
	// StaticToken. It is called for every connection, so that tokens can be renewed. Mind that the address can come
	// from a topic: a token for all addresses goes to whichever the application publishes to. One that would go over
	// plaintext TCP is refused (*InsecureTokenError) unless Insecure is set. At most 3 KiB.
	Token func(ctx context.Context, address string) (string, error)
	// Groups declares the consumer groups of topics, by topic: no credit is given before all of them exist or were
	// dropped, so that a restarted process gives none of them less than it confirmed. ManagerConfig.Ready does that
	// without names.
	Groups map[string][]string
	// Dedupe remembers across restarts what was settled. Nil means that this lives as long as the listener.
	Dedupe store.DedupeStore

	// HandshakeTimeout bounds connecting, TLS and greeting; 0 means 5 s.
	HandshakeTimeout time.Duration
	// WriteTimeout is how long the socket may take next to nothing, less than a kilobyte a second, of what is written
	// before the connection counts as broken; 0 means 10 s.
	WriteTimeout time.Duration
	// PingAfter is the silence after which a peer is pinged, DeadAfter that after which it is given up; 0 means 10 s
	// and 30 s. A part of a large frame breaks the silence if it comes at a kilobyte a second or more.
	PingAfter, DeadAfter time.Duration
	// MoveAfter is how long a peer may be silent that has something unsettled, and handlers there may take when
	// messages are taken back from it, before streams of a route move to another address without its answer: what it
	// had can then come twice, and is marked (Delivery.MaybeDuplicate). 0 means 5 s; negative: what was sent to an
	// address never moves.
	MoveAfter time.Duration
	// ForgetAfter is how long an idle stream, and the name of an ephemeral topic that ended, are remembered, and how
	// long an address that left its route while it was silent is dialed, to tell it which streams have moved; 0 means 5
	// min.
	ForgetAfter time.Duration
	// Reconnect says how long to wait between attempts to connect, which never end. Nil means DefaultReconnectConfig.
	Reconnect *ReconnectConfig

	// MaxConnections, MaxTopics, MaxPublishers and MaxStreams bound what is kept at one address that is listened at; 0
	// means 16,384 connections and 65,536 of each of the others. A stream is one publisher's flow to one topic.
	// MaxConnectionsPerHost bounds the connections from one IP address, or one /64 of IPv6; 0 means a quarter of
	// MaxConnections, Unlimited none. A peer that exceeds a bound is told so, and can come back.
	MaxConnections, MaxConnectionsPerHost, MaxTopics, MaxPublishers, MaxStreams int
}

func (c *AckedConfig) setDefaults() {
	c.MaxMessageSize = cmp.Or(c.MaxMessageSize, 1<<20)
	c.WindowMessages = cmp.Or(c.WindowMessages, 16384)
	c.WindowBytes = cmp.Or(c.WindowBytes, 16<<20)
	c.MemoryLimit = cmp.Or(c.MemoryLimit, 256<<20)
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 5*time.Second)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, 10*time.Second)
	c.PingAfter = cmp.Or(c.PingAfter, 10*time.Second)
	c.DeadAfter = cmp.Or(c.DeadAfter, 30*time.Second)
	c.MoveAfter = cmp.Or(c.MoveAfter, 5*time.Second)
	c.ForgetAfter = cmp.Or(c.ForgetAfter, 5*time.Minute)
	c.MaxConnections = cmp.Or(c.MaxConnections, 16384)
	c.MaxConnectionsPerHost = cmp.Or(c.MaxConnectionsPerHost, max(1, c.MaxConnections/4))
	c.MaxTopics = cmp.Or(c.MaxTopics, 65536)
	c.MaxPublishers = cmp.Or(c.MaxPublishers, 65536)
	c.MaxStreams = cmp.Or(c.MaxStreams, 65536)
	reconnect := ReconnectConfig{}
	if c.Reconnect != nil {
		reconnect = *c.Reconnect
	}
	reconnect.setDefaults()
	c.Reconnect = &reconnect
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
	return c.Reconnect.validate()
}

// validateTrust is the part of Validate that is about strangers.
func (c *AckedConfig) validateTrust() error {
	const name = "AckedConfig."
	if err := netio.CheckTLS(c.ClientTLS); err != nil {
		return configError(name+"ClientTLS", "%w", err)
	}
	if err := netio.CheckTLS(c.ServerTLS); err != nil {
		return configError(name+"ServerTLS", "%w", err)
	}
	switch {
	case c.Token != nil && !c.Insecure && !netio.Verifies(c.ClientTLS):
		return configError(name+"Token", "ClientTLS has InsecureSkipVerify: anybody could pose as the peer and get the token; verify, or set Insecure")
	case min(c.MaxConnections, c.MaxTopics, c.MaxPublishers, c.MaxStreams) < 0:
		return configError(name+"MaxConnections, MaxTopics, MaxPublishers, MaxStreams", "must not be negative")
	case c.MaxConnectionsPerHost < Unlimited:
		return configError(name+"MaxConnectionsPerHost", "%d is negative; use Unlimited for none", c.MaxConnectionsPerHost)
	}
	return nil
}

// ReconnectConfig says how long to wait between attempts to connect: anything from nothing to a bound that grows with
// each attempt and begins anew with a connection that was welcomed. The zero value of each field means its default.
type ReconnectConfig struct {
	// InitialInterval is the bound of the wait after the first attempt that failed; 0 means 100 ms.
	InitialInterval time.Duration
	// MaxInterval is the largest bound; 0 means 10 s.
	MaxInterval time.Duration
	// Multiplier is the growth of the bound from one wait to the next; 0 means 2. No wait is longer than those before
	// it together, or InitialInterval: the end of an outage is noticed within as much time as it has taken.
	Multiplier float64
	// BackOff replaces the fields above. It is called once for each address that is dialed, and what it returns is used
	// by one goroutine. backoff.Stop means 10 s, and less than 5 ms means that.
	BackOff func() backoff.BackOff
}

// DefaultReconnectConfig waits up to 100 ms at first, and doubles that bound up to 10 s.
func DefaultReconnectConfig() *ReconnectConfig {
	return &ReconnectConfig{InitialInterval: 100 * time.Millisecond, MaxInterval: 10 * time.Second, Multiplier: 2}
}

func (c *ReconnectConfig) setDefaults() {
	d := DefaultReconnectConfig()
	c.InitialInterval = cmp.Or(c.InitialInterval, d.InitialInterval)
	c.MaxInterval = cmp.Or(c.MaxInterval, max(d.MaxInterval, c.InitialInterval))
	c.Multiplier = cmp.Or(c.Multiplier, d.Multiplier)
	if c.BackOff == nil {
		initial, limit, multiplier := c.InitialInterval, c.MaxInterval, c.Multiplier
		c.BackOff = func() backoff.BackOff { return netio.NewReconnect(initial, limit, multiplier) }
	}
}

func (c ReconnectConfig) validate() error {
	switch {
	case c.InitialInterval < 0:
		return configError("ReconnectConfig.InitialInterval", "%v is negative", c.InitialInterval)
	case c.MaxInterval < c.InitialInterval:
		return configError("ReconnectConfig.MaxInterval", "%v is less than InitialInterval %v", c.MaxInterval, c.InitialInterval)
	case !(c.Multiplier >= 1):
		return configError("ReconnectConfig.Multiplier", "%v is less than 1", c.Multiplier)
	}
	return nil
}
