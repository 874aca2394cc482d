// Package pool keeps the sockets: writers and listeners of framed messages,
// keyed by their address.
//
// A Writer gathers messages of any number of goroutines and sends them in few
// system calls; when its connection breaks it opens a new one. A Listener hands
// each received message to a callback or a channel. A Manager holds many of both.
package pool

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// DefaultMaxMessageSize is the limit of one message in bytes where a
// configuration leaves MaxMessageSize 0.
const DefaultMaxMessageSize = 4096

// Defaults of WriterConfig and ListenerConfig.
const (
	defaultBufferSize       = 1 << 20
	defaultDialTimeout      = 10 * time.Second
	defaultWriteTimeout     = 10 * time.Second
	defaultCloseTimeout     = 5 * time.Second
	defaultHandshakeTimeout = 5 * time.Second
	defaultFrameTimeout     = 30 * time.Second
	defaultMaxConnections   = 4096
	defaultMaxPerHost       = 1024
	defaultMaxEmptyMessages = 4096
)

// Unlimited switches a limit or time-out off where its zero value means a default.
const Unlimited = -1

// DialFunc opens a connection; it must respect the context.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// ListenFunc opens a listening socket.
type ListenFunc func(network, address string) (net.Listener, error)

// ManagerConfig configures a Manager. The zero value is valid.
type ManagerConfig struct {
	// Dial and Listen stand between the Manager and the network: a proxy, a
	// test, or a socket that was handed over. Nil means package net.
	Dial   DialFunc
	Listen ListenFunc
	// DialAllow limits where everything of this Manager connects to, also through a Dial. Nil means no limit. Set it where
	// topics or routes come from elsewhere than the configuration.
	DialAllow *DialAllow
	// Logger takes what nobody else is told of. Nil means watermill.NopLogger.
	Logger watermill.LoggerAdapter
}

func (c *ManagerConfig) setDefaults() {
	switch {
	case c.DialAllow != nil:
		c.Dial = (*netio.DialAllow)(c.DialAllow).Guard(c.Dial)
	case c.Dial == nil:
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Listen == nil {
		c.Listen = netio.Listen
	}
	if c.Logger == nil {
		c.Logger = watermill.NopLogger{}
	}
}

// WriterConfig configures a Writer. Only Address is required.
type WriterConfig struct {
	// Address is dialled, and is the Writer's key in a Manager. Network is any
	// stream network of package net; empty means "tcp".
	Address string
	Network string
	// Key replaces Address as the key, where the same address is reached in
	// several ways, such as with TLS and without.
	Key string
	// MaxMessageSize is the limit of one message in bytes; 0 means
	// DefaultMaxMessageSize. A BuffStreams peer must have the same limit, as the
	// width of the header follows from it.
	MaxMessageSize int
	// Codec frames the messages. Nil means BuffStreams of MaxMessageSize.
	Codec framing.Codec
	// TLSConfig, when set, makes TLS begin with the first byte: 1.3 or later,
	// whatever its MinVersion. An empty ServerName is taken from Address.
	TLSConfig *tls.Config

	// BufferSize bounds in bytes what waits for the connection; 0 means 1 MiB.
	// As much again can be on its way into the socket. Write blocks when it is
	// full. A message larger than BufferSize is taken when nothing else waits.
	BufferSize int
	// DialTimeout bounds one attempt to connect, TLS handshake included; 0 means 10 s.
	DialTimeout time.Duration
	// WriteTimeout is how long the socket may take for up to 64 KiB before the
	// connection counts as broken; 0 means 10 s, Unlimited never.
	WriteTimeout time.Duration
	// CloseTimeout bounds how long Close goes on sending, and once more how long
	// it waits for the failure handler; 0 means 5 s.
	CloseTimeout time.Duration

	// Retry says how to come back after a connection broke. Nil means
	// DefaultRetryConfig.
	Retry *RetryConfig
	// OnFailure gets each message that failed for good, in their order, from one
	// goroutine that holds no lock: it may write the message to another address
	// of the same Manager. Close waits for it, so it must not close its own Writer.
	OnFailure func(Failure)
	// Failures gets them instead, in the same order. A full channel holds back
	// only further failures: what is pending meanwhile goes on being retried.
	Failures chan<- Failure

	// Dial and Logger are the Manager's where they are nil.
	Dial   DialFunc
	Logger watermill.LoggerAdapter
}

func (c *WriterConfig) setDefaults() {
	setDefault(&c.Network, "tcp")
	setDefault(&c.BufferSize, defaultBufferSize)
	setDefault(&c.DialTimeout, defaultDialTimeout)
	setDefault(&c.WriteTimeout, defaultWriteTimeout)
	setDefault(&c.CloseTimeout, defaultCloseTimeout)
	retry := RetryConfig{}
	if c.Retry != nil {
		retry = *c.Retry
	}
	retry.setDefaults()
	c.Retry = &retry
	if c.Dial == nil {
		c.Dial = (&net.Dialer{}).DialContext
	}
	if c.Logger == nil {
		c.Logger = watermill.NopLogger{}
	}
}

// Validate names the first field that cannot work.
func (c WriterConfig) Validate() error {
	c.setDefaults()
	switch {
	case c.Address == "":
		return configError("WriterConfig.Address", "is empty; give host:port")
	case c.BufferSize < 0:
		return configError("WriterConfig.BufferSize", "%d is negative", c.BufferSize)
	case c.DialTimeout < 0:
		return configError("WriterConfig.DialTimeout", "%v is negative", c.DialTimeout)
	case c.CloseTimeout < 0:
		return configError("WriterConfig.CloseTimeout", "%v is negative", c.CloseTimeout)
	case netio.CheckTLS(c.TLSConfig) != nil:
		return configError("WriterConfig.TLSConfig", "%w", netio.CheckTLS(c.TLSConfig))
	case c.OnFailure != nil && c.Failures != nil:
		return configError("WriterConfig.Failures", "OnFailure is set as well; choose one")
	}
	if err := c.Retry.validate(); err != nil {
		return err
	}
	_, err := codecOf("WriterConfig", c.Codec, c.MaxMessageSize)
	return err
}

// ListenerConfig configures a Listener. Address and one of Callback and
// Messages are required.
type ListenerConfig struct {
	// Address is listened on, and is the Listener's key in a Manager. Network is
	// any stream network of package net; empty means "tcp".
	Address string
	Network string
	// MaxMessageSize and Codec are as in WriterConfig. A longer message ends
	// the connection that brought it.
	MaxMessageSize int
	Codec          framing.Codec

	// Callback gets every message. It runs on the goroutine of the connection:
	// one at a time for each, concurrently for several.
	Callback ListenCallback
	// Messages gets every message instead; each belongs to whoever received it.
	// While it is full the connections are not read, and TCP slows their peers.
	// It is never closed here, and nothing is sent on it after Close returned.
	Messages chan<- []byte

	// TLSConfig, when set, makes TLS begin with the first byte: 1.3 or later,
	// whatever its MinVersion. Sessions are not resumed.
	TLSConfig *tls.Config
	// Insecure permits plaintext on an address that is not loopback.
	Insecure bool

	// MaxConnections bounds the open connections, MaxConnectionsPerHost those
	// from one IP address; 0 means 4096 and 1024, Unlimited none. One too many
	// is closed as soon as it was accepted.
	MaxConnections        int
	MaxConnectionsPerHost int
	// MaxEmptyMessages bounds how many messages without content a connection can
	// send in a row within a second; the connection then pauses until the second
	// is over, and loses nothing. 0 means 4096, Unlimited none.
	MaxEmptyMessages int
	// IdleTimeout ends a connection on which no message begins for that long;
	// 0 means never, as BuffStreams peers may be silent.
	IdleTimeout time.Duration
	// FrameTimeout bounds the time from the first byte of a message to its last;
	// 0 means 30 s, Unlimited none.
	FrameTimeout time.Duration
	// HandshakeTimeout bounds the TLS handshake; 0 means 5 s.
	HandshakeTimeout time.Duration
	// CloseTimeout bounds how long Close waits for callbacks; 0 means 5 s.
	CloseTimeout time.Duration

	// Listen and Logger are the Manager's where they are nil.
	Listen ListenFunc
	Logger watermill.LoggerAdapter

	// Admit decides on each connection after its TLS handshake, which can be asked of a *tls.Conn, and before any message is
	// read. An error ends the connection and is logged. It is called on the connection's goroutine, for several connections
	// at the same time; its context ends with HandshakeTimeout. Nil admits all.
	Admit func(context.Context, net.Conn) error
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
	if c.Logger == nil {
		c.Logger = watermill.NopLogger{}
	}
}

// Validate names the first field that cannot work.
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
	_, err := codecOf("ListenerConfig", c.Codec, c.MaxMessageSize)
	return err
}

// codecOf settles what two fields say about the frame format.
func codecOf(owner string, codec framing.Codec, maxMessageSize int) (framing.Codec, error) {
	if codec == nil {
		if maxMessageSize == 0 {
			maxMessageSize = DefaultMaxMessageSize
		}
		buffStreams, err := framing.NewBuffStreams(maxMessageSize)
		if err != nil {
			return nil, configError(owner+".MaxMessageSize", "%w", err)
		}
		return buffStreams, nil
	}
	if maxMessageSize != 0 && maxMessageSize != codec.MaxLength() {
		return nil, configError(owner+".MaxMessageSize", "%d contradicts the limit %d of Codec; leave it 0",
			maxMessageSize, codec.MaxLength())
	}
	return codec, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
