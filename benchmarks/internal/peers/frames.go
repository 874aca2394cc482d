package peers

import (
	"encoding/binary"
	"net"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// Frames is the physical limit: one goroutine fills 64 KiB before it writes, one reads 256 KiB and parses what is
// there. BigFrames is that for payloads which do not fit: one write for header and payload, without a copy.
var (
	Frames = Peer{
		Name: "raw TCP frames", Guarantee: "none: it is in a buffer",
		Settings: "one connection; writes of 64 KiB, reads of 256 KiB, one parser", Receive: receiveFrames,
		Dial: func(s Setup, to Receiver) (Sender, error) {
			conns, err := dial(to.Address(), 1)
			if err != nil {
				return nil, err
			}
			return &frameSender{conn: conns[0]}, nil
		},
	}
	BigFrames = Peer{
		Name: "raw TCP frames of that size", Guarantee: "the kernel has it",
		Settings: "one connection; one writev for header and payload, reads of up to 256 KiB, one parser", Receive: receiveFrames,
		Dial: func(s Setup, to Receiver) (Sender, error) {
			conns, err := dial(to.Address(), 1)
			if err != nil {
				return nil, err
			}
			return &vectorSender{conn: conns[0]}, nil
		},
	}
)

const (
	frameHeader = 4
	frameWrite  = 64 << 10
	frameRead   = 256 << 10
)

func receiveFrames(s Setup, tally *measure.Tally) (Receiver, error) {
	return serve(func(conn net.Conn) {
		buf := make([]byte, frameRead+frameHeader+s.Size)
		have := 0
		for {
			n, err := conn.Read(buf[have:min(have+frameRead, len(buf))])
			if err != nil {
				return
			}
			have += n
			rest := buf[:have]
			for len(rest) >= frameHeader {
				end := frameHeader + int(binary.BigEndian.Uint32(rest))
				if len(rest) < end {
					break
				}
				tally.Arrive(rest[frameHeader:end])
				rest = rest[end:]
			}
			have = copy(buf, rest)
		}
	})
}

// frameSender fills a buffer. It is the limit of one goroutine: others take turns.
type frameSender struct {
	conn net.Conn
	buf  []byte
}

func (f *frameSender) Send(_ int, batch [][]byte) error {
	for _, message := range batch {
		f.buf = binary.BigEndian.AppendUint32(f.buf, uint32(len(message)))
		f.buf = append(f.buf, message...)
		if len(f.buf) < frameWrite {
			continue
		}
		if err := f.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// Flush writes what is left.
func (f *frameSender) Flush() error {
	_, err := f.conn.Write(f.buf)
	f.buf = f.buf[:0]
	return err
}

func (f *frameSender) Close() error { return f.conn.Close() }

type vectorSender struct {
	conn   net.Conn
	header [frameHeader]byte
	eager
}

func (v *vectorSender) Send(_ int, batch [][]byte) error {
	for _, message := range batch {
		binary.BigEndian.PutUint32(v.header[:], uint32(len(message)))
		buffers := net.Buffers{v.header[:], message}
		if _, err := buffers.WriteTo(v.conn); err != nil {
			return err
		}
	}
	return nil
}

func (v *vectorSender) Close() error { return v.conn.Close() }
