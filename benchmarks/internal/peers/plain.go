package peers

import (
	"context"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// Plain is this library's pool on the wire of BuffStreams: all senders share one Writer.
var Plain = Peer{
	Name:      "pool, plain wire",
	Guarantee: "it is queued for the socket; what the kernel had when the connection broke is lost",
	Settings:  "defaults; one Writer, a Listener with a callback",
	Receive:   receivePlain,
	Dial:      dialPlain,
}

func (s Setup) plainLimit() int { return max(s.Size, pool.DefaultMaxMessageSize) }

func receivePlain(s Setup, tally *measure.Tally) (Receiver, error) {
	l, err := pool.ListenTCP(pool.ListenerConfig{
		Address: loopback, MaxMessageSize: s.plainLimit(),
		Callback: func(message []byte) error {
			tally.Arrive(message)
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	return at{l.Addr().String(), ends{l.Close}}, l.StartListeningAsync()
}

func dialPlain(s Setup, to Receiver) (Sender, error) {
	w, err := pool.DialTCP(pool.WriterConfig{Address: to.Address(), MaxMessageSize: s.plainLimit()})
	if err != nil {
		return nil, err
	}
	return plainSender{w}, nil
}

type plainSender struct{ w *pool.Writer }

func (p plainSender) Send(_ int, batch [][]byte) error {
	for _, message := range batch {
		if _, err := p.w.Write(message); err != nil {
			return err
		}
	}
	return nil
}

func (p plainSender) Flush() error { return p.w.Flush(context.Background()) }
func (p plainSender) Close() error { return p.w.Close() }
