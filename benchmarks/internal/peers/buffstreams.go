package peers

import (
	"io"
	"net"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// BuffStreams moves messages as the original does: one write a message, and two reads, of the header and of the body.
// Its connections cannot be shared, so each sender has its own. Buffers are reused.
var BuffStreams = Peer{
	Name: "BuffStreams-like", Guarantee: "the kernel has it",
	Settings: "one write and two reads a message; a connection for each sender; buffers are reused",
	Receive: func(s Setup, tally *measure.Tally) (Receiver, error) {
		return serve(func(conn net.Conn) { readTwice(conn, s.Size, tally) })
	},
	Dial: func(s Setup, to Receiver) (Sender, error) {
		conns, err := dial(to.Address(), s.Senders)
		return &buffSender{conns: conns, frames: make([][]byte, s.Senders)}, err
	},
}

// buffWidth is that of a header where the limit is 4096 bytes.
const buffWidth = 3

// putLength writes a zigzag varint of the length, padded with zeros to the width.
func putLength(header []byte, length int) {
	v := uint64(length) << 1 // zigzag of what is not negative
	for i := range header[:buffWidth] {
		header[i] = 0
		if v == 0 {
			continue
		}
		header[i] = byte(v & 0x7f)
		if v >>= 7; v > 0 {
			header[i] |= 0x80
		}
	}
}

func length(header []byte) int {
	v := 0
	for i, b := range header[:buffWidth] {
		v |= int(b&0x7f) << (7 * i)
		if b&0x80 == 0 {
			break
		}
	}
	return v >> 1
}

func readTwice(conn net.Conn, limit int, tally *measure.Tally) {
	header, body := make([]byte, buffWidth), make([]byte, limit)
	for {
		if _, err := io.ReadFull(conn, header); err != nil {
			return
		}
		n := length(header)
		if n > limit {
			return
		}
		if _, err := io.ReadFull(conn, body[:n]); err != nil {
			return
		}
		tally.Arrive(body[:n])
	}
}

type buffSender struct {
	conns  []net.Conn
	frames [][]byte // of each sender
	eager
}

func (b *buffSender) Send(sender int, batch [][]byte) error {
	for _, message := range batch {
		frame := append(b.frames[sender][:0], 0, 0, 0)
		putLength(frame, len(message))
		frame = append(frame, message...)
		b.frames[sender] = frame
		if _, err := b.conns[sender].Write(frame); err != nil {
			return err
		}
	}
	return nil
}

func (b *buffSender) Close() error { return hangUp(b.conns) }
