package peers

import (
	"io"
	"net"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// PingPong is the least that a round trip takes: a message there, its number back.
var PingPong = Peer{
	Name: "raw TCP ping-pong", Guarantee: "the other side has read it", Settings: "one write and one read each way",
	Receive: func(s Setup, tally *measure.Tally) (Receiver, error) {
		return serve(func(conn net.Conn) {
			message := make([]byte, s.Size)
			for {
				if _, err := io.ReadFull(conn, message); err != nil {
					return
				}
				tally.Arrive(message)
				if _, err := conn.Write(message[4:12]); err != nil {
					return
				}
			}
		})
	},
	Dial: func(s Setup, to Receiver) (Sender, error) {
		conns, err := dial(to.Address(), 1)
		if err != nil {
			return nil, err
		}
		return &pinger{conn: conns[0]}, nil
	},
}

type pinger struct {
	conn   net.Conn
	answer [8]byte
	eager
}

func (p *pinger) Send(_ int, batch [][]byte) error {
	for _, message := range batch {
		if _, err := p.conn.Write(message); err != nil {
			return err
		}
		if _, err := io.ReadFull(p.conn, p.answer[:]); err != nil {
			return err
		}
	}
	return nil
}

func (p *pinger) Close() error { return p.conn.Close() }
