package pipe

import (
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/access"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// Options are what pub and sub have in common.
type Options struct {
	Topic string
	Wire  buffstreams.Wire
	// MaxMessageSize is the limit of a payload in bytes; 0 means 1 MiB on the acked wire, 4096 on the plain one.
	MaxMessageSize int
	// Access says how connections are secured.
	Access access.Access
	// Logger takes what is no result and no error of the command. It must not be nil.
	Logger watermill.LoggerAdapter
}

// Limits of --max-message-size. The largest leaves the envelope its room within what the library takes.
const (
	defaultMaxMessage = 1 << 20
	largestMessage    = 1<<30 - envelopeRoom
)

// envelopeRoom is what UUID and metadata may take besides the payload that a limit is about.
const envelopeRoom = 64 << 10

// check fills in defaults and names the first option that cannot work.
func (o *Options) check() (Address, error) {
	address, err := ParseTopic(o.Topic)
	if err != nil {
		return address, err
	}
	plain := o.Wire == buffstreams.WireBuffStreams
	if plain && address.Name != "" {
		return address, fmt.Errorf("bad address %.200q: the buffstreams wire has no topic names; leave %q out", o.Topic, address.Name)
	}
	if o.MaxMessageSize < 0 || o.MaxMessageSize > largestMessage {
		return address, fmt.Errorf("--max-message-size %d is not between 1 and %d", o.MaxMessageSize, largestMessage)
	}
	if o.MaxMessageSize == 0 {
		o.MaxMessageSize = defaultMaxMessage
		if plain {
			o.MaxMessageSize = pool.DefaultMaxMessageSize
		}
	}
	return address, nil
}

// AckedConfig is for messages whose payload has up to limit bytes. Windows are at their defaults unless a few of the
// largest messages would not find room in them.
func AckedConfig(limit int) buffstreams.AckedConfig {
	largest := limit + envelopeRoom
	window := max(16<<20, min(4*largest, largest+64<<20))
	return buffstreams.AckedConfig{
		MaxMessageSize: largest,
		WindowBytes:    window,
		MemoryLimit:    max(256<<20, 2*window),
		Reconnect:      &buffstreams.ReconnectConfig{MaxInterval: time.Second}, // somebody sits and waits
	}
}
