package pool

import (
	"context"
	"net"
	"strings"

	"github.com/buffstreams/watermill-buffstreams/framing"
)

// DefaultMaxMessageSize is the limit of one message, in bytes, where a configuration leaves MaxMessageSize 0.
const DefaultMaxMessageSize = 4096

// Unlimited switches off a limit or timeout whose zero value means a default.
const Unlimited = -1

// DialFunc opens a connection, as net.Dialer.DialContext does. It must return when the context is done, and be safe for
// concurrent use.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// ListenFunc opens a listening socket, as net.Listen does. It must be safe for concurrent use.
type ListenFunc func(network, address string) (net.Listener, error)

// FormatAddress joins a host and a port to an address for Dial or StartListening. An IPv6 host gets its brackets,
// whether it has them or not; an empty host means every interface when listening.
func FormatAddress(host, port string) string {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return net.JoinHostPort(host, port)
}

// resolveCodec returns the Codec of a configuration, or BuffStreams where it is nil.
func resolveCodec(config string, codec framing.Codec, maxMessageSize int) (framing.Codec, error) {
	if codec == nil {
		setDefault(&maxMessageSize, DefaultMaxMessageSize)
		buffStreams, err := framing.NewBuffStreams(maxMessageSize)
		if err != nil {
			return nil, configError(config+".MaxMessageSize", "%w", err)
		}
		return buffStreams, nil
	}
	if maxMessageSize != 0 && maxMessageSize != codec.MaxLength() {
		return nil, configError(config+".MaxMessageSize", "%d contradicts the limit %d of Codec; leave it 0",
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
