package pool

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// Defaults of ListenerConfig.
const (
	defaultHandshakeTimeout = 5 * time.Second
	defaultFrameTimeout     = 30 * time.Second
	defaultMaxConnections   = 4096
	defaultMaxPerHost       = 1024
	defaultMaxEmptyMessages = 4096
)

// ListenCallback is called with each message, without its header. It runs on the goroutine of the connection that
// brought the message: one call at a time for a connection, in order, and concurrent calls for several connections. It
// may block: the connection is not read meanwhile, and TCP slows the peer down. The bytes are valid until it returns.
//
// An error or a panic is logged, and the connection goes on. The callback must not close
// its own Listener, as Close waits for it.
type ListenCallback func([]byte) error

// ListenerConfig configures a Listener. Address and one of Callback and Messages are required.
type ListenerConfig struct {
	// Address is where to listen: host:port, or the path of a Unix socket. It is the Listener's key in a Manager.
	Address string
	// Network is a stream network of package net. Empty means "tcp".
	Network string

	// MaxMessageSize and Codec are as in WriterConfig. A longer message ends the connection that brought it.
	MaxMessageSize int
	Codec          framing.Codec

	// Callback is called with every message.
	Callback ListenCallback
	// Messages receives every message instead; the receiver owns the bytes. While the channel is full the connections
	// are not read, and TCP slows the peers down. It is never closed, and nothing is sent on it after Close returned.
	Messages chan<- []byte

	// TLSConfig, if set, makes every connection TLS 1.3 or later from its first byte; a lower MinVersion is raised.
	// Sessions are not resumed. Nil means plaintext.
	TLSConfig *tls.Config
	// Insecure permits plaintext on an address that is not loopback.
	Insecure bool
	// Admit decides on each connection, after its TLS handshake and before a message is read. An error ends the
	// connection and is logged. It runs on the connection's goroutine, concurrently for several connections; conn is a
	// *tls.Conn under TLS, and ctx ends with HandshakeTimeout. Nil admits all.
	Admit func(ctx context.Context, conn net.Conn) error

	// MaxConnections bounds the open connections; one more is closed as soon as it was accepted. 0 means 4096,
	// Unlimited no bound.
	MaxConnections int
	// MaxConnectionsPerHost bounds those from one IPv4 address or one IPv6 /64. 0 means 1024, Unlimited no bound.
	MaxConnectionsPerHost int
	// MaxEmptyMessages bounds how many empty messages in a row a connection may bring within a second; then it is not
	// read until the second is over, and loses nothing. 0 means 4096, Unlimited no bound.
	MaxEmptyMessages int

	// IdleTimeout ends a connection on which no message begins for that long. 0 means never: BuffStreams peers may be
	// silent.
	IdleTimeout time.Duration
	// FrameTimeout bounds the time in which a message that has begun makes next to no progress: less than a kilobyte a
	// second. 0 means 30 s, Unlimited no bound.
	FrameTimeout time.Duration
	// HandshakeTimeout bounds the TLS handshake, and Admit with it. 0 means 5 s.
	HandshakeTimeout time.Duration
	// CloseTimeout bounds how long Close waits for callbacks. 0 means 5 s.
	CloseTimeout time.Duration

	// Listen opens the socket. Nil means the Manager's, or package net.
	Listen ListenFunc
	// Hooks are told of connections that were admitted, refused or lost: those that implement hooks.AcceptedHook,
	// hooks.RefusedHook or hooks.LostHook. One that blocks holds up its connection, and Close until CloseTimeout; a
	// panic is logged. Nil means the Manager's, or none.
	Hooks []hooks.Hook
	// Logger gets errors of callbacks and connections that ended badly. Nil means the Manager's, or
	// watermill.NopLogger.
	Logger watermill.LoggerAdapter
}

func (c *ListenerConfig) setDefaults() {
	setDefault(&c.Network, "tcp")
	setDefault(&c.MaxConnections, defaultMaxConnections)
	setDefault(&c.MaxConnectionsPerHost, defaultMaxPerHost)
	setDefault(&c.MaxEmptyMessages, defaultMaxEmptyMessages)
	setDefault(&c.FrameTimeout, defaultFrameTimeout)
	setDefault(&c.HandshakeTimeout, defaultHandshakeTimeout)
	setDefault(&c.CloseTimeout, defaultCloseTimeout)
	if c.Listen == nil {
		c.Listen = netio.Listen
	}
	c.Logger = hook.Logger(c.Logger)
}

// Validate returns an error that names the first field that is not valid, or nil. ListenTCP and Manager.StartListening
// call it.
func (c ListenerConfig) Validate() error {
	c.setDefaults()
	switch {
	case c.Address == "":
		return configError("ListenerConfig.Address", "is empty; give host:port")
	case c.Callback == nil && c.Messages == nil:
		return configError("ListenerConfig.Callback", "neither Callback nor Messages is set; messages would go nowhere")
	case c.Callback != nil && c.Messages != nil:
		return configError("ListenerConfig.Messages", "Callback is set as well; choose one")
	case c.IdleTimeout < 0:
		return configError("ListenerConfig.IdleTimeout", "%v is negative", c.IdleTimeout)
	case c.HandshakeTimeout < 0:
		return configError("ListenerConfig.HandshakeTimeout", "%v is negative", c.HandshakeTimeout)
	case c.CloseTimeout < 0:
		return configError("ListenerConfig.CloseTimeout", "%v is negative", c.CloseTimeout)
	}
	if err := netio.CheckTLS(c.TLSConfig); err != nil {
		return configError("ListenerConfig.TLSConfig", "%w", err)
	}
	if c.TLSConfig == nil && !c.Insecure && netio.Exposed(c.Network, c.Address) {
		return &netio.InsecureAddressError{Address: c.Address}
	}
	_, err := resolveCodec("ListenerConfig", c.Codec, c.MaxMessageSize)
	return err
}
