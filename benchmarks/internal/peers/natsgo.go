package peers

import (
	"errors"

	"github.com/nats-io/nats.go"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// NATSGo is the NATS client alone: payloads to a callback, without Watermill's messages, metadata and acks.
var NATSGo = Peer{
	Name: "nats.go without Watermill", Guarantee: "none: the client buffers it; what the server cannot hand on at once is dropped",
	Settings: "defaults, a callback, no headers; nats-server embedded", Window: 2 * natsWindow,
	Receive: func(s Setup, tally *measure.Tally) (Receiver, error) {
		address, stop, err := s.natsServer()
		if err != nil {
			return nil, err
		}
		conn, err := nats.Connect(address)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		end := at{address, ends{func() error { conn.Close(); return nil }, stop}}
		_, err = conn.Subscribe(s.Name, func(m *nats.Msg) { tally.Arrive(m.Data) })
		return end, errors.Join(err, conn.Flush())
	},
	Dial: func(s Setup, to Receiver) (Sender, error) {
		conn, err := nats.Connect(to.Address())
		return natsSender{conn, s.Name}, err
	},
}

type natsSender struct {
	conn    *nats.Conn
	subject string
}

func (n natsSender) Send(_ int, batch [][]byte) error {
	for _, payload := range batch {
		if err := n.conn.Publish(n.subject, payload); err != nil {
			return err
		}
	}
	return nil
}

func (n natsSender) Flush() error { return n.conn.Flush() }

func (n natsSender) Close() error {
	n.conn.Close()
	return nil
}
