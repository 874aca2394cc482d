package pool

import (
	"crypto/tls"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// Defaults of WriterConfig.
const (
	defaultBufferSize   = 1 << 20
	defaultDialTimeout  = 10 * time.Second
	defaultWriteTimeout = 10 * time.Second
	defaultCloseTimeout = 5 * time.Second // of ListenerConfig as well
)

// WriterConfig configures a Writer. Only Address is required.
type WriterConfig struct {
	// Address is where to connect: host:port, or the path of a Unix socket. It is the Writer's key in a Manager.
	Address string
	// Network is a stream network of package net. Empty means "tcp".
	Network string
	// Key replaces Address as the key in a Manager, for an address that is reached in several ways, such as with TLS
	// and without.
	Key string

	// MaxMessageSize limits one message, in bytes. 0 means the limit of Codec, or DefaultMaxMessageSize. A BuffStreams
	// peer must have the same limit, as the width of the header follows from it.
	MaxMessageSize int
	// Codec frames the messages. Nil means the framing of BuffStreams for MaxMessageSize.
	Codec framing.Codec
	// TLSConfig, if set, makes every connection TLS 1.3 or later from its first byte; a lower MinVersion is raised. An
	// empty ServerName is taken from Address. Nil means plaintext.
	TLSConfig *tls.Config

	// BufferSize bounds what waits to be sent, in bytes; as much again can be on its way into the socket. Write blocks
	// while the buffer is full. A message larger than BufferSize is taken when nothing else waits. 0 means 1 MiB.
	BufferSize int
	// DialTimeout bounds one attempt to connect, TLS handshake included. 0 means 10 s.
	DialTimeout time.Duration
	// WriteTimeout bounds the time in which the socket takes next to nothing, less than a kilobyte a second; then the
	// connection counts as broken. 0 means 10 s, Unlimited no bound.
	WriteTimeout time.Duration
	// CloseTimeout bounds how long Close goes on sending, and then once more how long it waits for OnFailure or
	// Failures. 0 means 5 s.
	CloseTimeout time.Duration

	// Retry says how to reconnect after a connection broke. Nil means DefaultRetryConfig.
	Retry *RetryConfig
	// OnFailure is called with each message that failed for good, in order, one call at a time. It may block, and may
	// write the message to another address of the same Manager: no lock is held, and the Writer goes on. It must not
	// close its own Writer, whose Close waits for it. A panic is logged, and loses its message.
	OnFailure func(Failure)
	// Failures receives them instead, in the same order. While the channel is full, the Writer gives up on no further
	// messages but goes on retrying them. It is never closed, and nothing is sent on it after Close returned.
	Failures chan<- Failure

	// Dial opens the connections. Nil means the Manager's, or package net. The DialAllow of the Manager binds it.
	Dial DialFunc
	// Hooks are told of attempts to connect, of connections and of their ends: those that implement hooks.DialedHook,
	// hooks.ConnectedHook or hooks.LostHook. One that blocks holds up this Writer, and Close until CloseTimeout; a
	// panic is logged. Nil means the Manager's, or none.
	Hooks []hooks.Hook
	// Logger gets lost connections and failed messages. Nil means the Manager's, or watermill.NopLogger.
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
		c.Dial = (&netio.Dialer{}).DialContext
	}
	c.Logger = hook.Logger(c.Logger)
}

// Validate returns an error that names the first field that is not valid, or nil. DialTCP and Manager.Dial call it.
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
	_, err := resolveCodec("WriterConfig", c.Codec, c.MaxMessageSize)
	return err
}
