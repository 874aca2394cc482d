package hostile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// The strangers of this package are written from docs/protocol.md: of the project they share only proto/.

const (
	leastFrame  = 65_600 // what each side must accept
	trailerTag  = 0x7d
	greetLimit  = 4096
	maxMessage  = 16 << 10 // of the listener under attack
	windowCount = 4096     // its WindowMessages
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// framed puts the length before a payload.
func framed(payload []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...)
}

// sealed is the frame of a payload with its checksum.
func sealed(payload []byte) []byte {
	sum := crc32.Checksum(payload, castagnoli)
	return framed(binary.LittleEndian.AppendUint32(append(bytes.Clone(payload), trailerTag), sum))
}

// payloadOf encodes a Frame with the given body.
func payloadOf(body proto.Message) []byte {
	f := (&wire.Frame{}).ProtoReflect()
	kinds := f.Descriptor().Oneofs().ByName("body").Fields()
	for i := range kinds.Len() {
		if kinds.Get(i).Message().FullName() == body.ProtoReflect().Descriptor().FullName() {
			f.Set(kinds.Get(i), protoreflect.ValueOfMessage(body.ProtoReflect()))
		}
	}
	payload, err := proto.Marshal(f.Interface())
	if err != nil {
		panic(err) // a mistake in the table of attacks
	}
	return payload
}

func frameOf(body proto.Message) []byte { return sealed(payloadOf(body)) }

// everyBody is a body of each type.
func everyBody() []proto.Message {
	return []proto.Message{
		&wire.Hello{Version: 1, MaxFrame: leastFrame}, &wire.Welcome{Version: 1, MaxFrame: leastFrame, MaxMessage: 1},
		&wire.Open{Handle: 1}, &wire.Opened{Handle: 1}, &wire.Publish{Handle: 1, First: 1, Messages: [][]byte{{1}}},
		&wire.Ack{Handle: 1, Next: 1}, &wire.Want{Handle: 1}, &wire.Reject{Handle: 1, Sequence: 1}, &wire.RejectSeen{Handle: 1, Sequence: 1},
		&wire.Ping{Id: 1}, &wire.Pong{Id: 1}, &wire.Goaway{}, &wire.Failure{}, &wire.Release{Handle: 1},
	}
}

// ugly is text that would break a log, or fool its reader.
const ugly = "\r\n\x1b[31mlevel=ERROR msg=\"forged line\"\x00\u202e"

// peer is one end of a connection, in plaintext. Errors of writing are not looked at: whom we attack may have closed.
type peer struct {
	conn net.Conn
	in   *bufio.Reader
	rng  *rand.Rand
	turn int    // how often its attack was made before
	who  string // no other attack has it

	frames  int           // that came since the greeting
	failure *wire.Failure // that the other side sent
	opened  *wire.Opened  // the last
	limit   *wire.Ack     // the last with credit
	short   bool          // it gave less credit than the attack needs

	outlived     bool   // it went on when it should not have
	handle, base uint64 // of the stream that a publisher opened
}

func newPeer(conn net.Conn, turn int) *peer {
	p := &peer{conn: conn, in: bufio.NewReader(conn), turn: turn}
	p.is(fmt.Sprint(conn.LocalAddr(), "/", turn))
	return p
}

// is decides who the peer is: all that it chooses follows from that.
func (p *peer) is(who string) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(who))
	p.who, p.rng = who, rand.New(rand.NewPCG(h.Sum64(), 77))
}

func (p *peer) write(b []byte)          { _, _ = p.conn.Write(b) }
func (p *peer) send(body proto.Message) { p.write(frameOf(body)) }

func (p *peer) halfClose() {
	if tcp, ok := p.conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

// reset ends the connection so that the other side's next read fails.
func (p *peer) reset() {
	if tcp, ok := p.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = p.conn.Close()
}

func (p *peer) within(d time.Duration) { _ = p.conn.SetDeadline(time.Now().Add(d)) }

// unexpected is an answer other than docs/protocol.md has.
type unexpected struct{ what string }

func (e *unexpected) Error() string { return e.what }

const goesOn = "the connection goes on"

func wrong(format string, args ...any) error { return &unexpected{fmt.Sprintf(format, args...)} }

// next reads one frame. Its error is io.EOF for any end of the connection.
func (p *peer) next() (proto.Message, error) {
	var header [4]byte
	if _, err := io.ReadFull(p.in, header[:]); err != nil {
		return nil, p.over(err)
	}
	size := binary.BigEndian.Uint32(header[:])
	if size > 2<<20 {
		return nil, wrong("a frame of %d bytes", size)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(p.in, payload); err != nil {
		return nil, p.over(err)
	}
	end := len(payload) - 5
	if end < 0 || !bytes.Equal(sealed(payload[:end])[4:], payload) {
		return nil, wrong("a frame with a wrong checksum")
	}
	var f wire.Frame
	if err := proto.Unmarshal(payload[:end], &f); err != nil {
		return nil, wrong("a malformed frame: %v", err)
	}
	m := f.ProtoReflect()
	kind := m.WhichOneof(m.Descriptor().Oneofs().ByName("body"))
	if kind == nil {
		return nil, wrong("a frame without a body")
	}
	body := m.Get(kind).Message().Interface()
	p.frames++
	switch b := body.(type) {
	case *wire.Failure:
		p.failure = b
	case *wire.Opened:
		p.opened = b
	case *wire.Ack:
		if b.CreditMessages > 0 {
			p.limit = b
		}
	}
	return body, nil
}

func (p *peer) over(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return wrong(goesOn)
	}
	return io.EOF // also a reset: it was closed with something unread
}

// await reads until done says so of a frame.
func (p *peer) await(done func(proto.Message) bool) error {
	for {
		body, err := p.next()
		if err != nil {
			return err
		}
		if done(body) {
			return nil
		}
	}
}

// An answer says whether the other side did what it should.
type answer func(*peer) error

// ends wants the end of the connection, whatever comes before it.
func ends(p *peer) error {
	err := p.await(func(proto.Message) bool { return false })
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// closes wants the end without a Failure.
func closes(p *peer) error {
	if err := ends(p); err != nil {
		return err
	}
	if p.failure != nil {
		return wrong("failed with %v: %q", p.failure.Code, p.failure.Reason)
	}
	return nil
}

// hangsUp wants the end and not a word before it.
func hangsUp(p *peer) error {
	err := closes(p)
	if err == nil && p.frames > 0 {
		err = wrong("was answered with %d frames before the end", p.frames)
	}
	return err
}

// gone wants the end at once, not only when the other side finds that it hears nothing.
func gone(p *peer) error {
	err := lives(p)
	var u *unexpected
	switch {
	case err == nil:
		return wrong("it goes on and answers")
	case errors.As(err, &u) && u.what == goesOn:
		return err
	}
	return nil
}

// fails wants a Failure, then the end.
func fails(code wire.Code) answer {
	return func(p *peer) error {
		if err := ends(p); err != nil {
			return err
		}
		if p.failure == nil {
			return wrong("closed without a Failure")
		}
		return p.hasFailed(code)
	}
}

func (p *peer) hasFailed(code wire.Code) error {
	if p.failure.Code != code {
		return wrong("failed with %v: %q", p.failure.Code, p.failure.Reason)
	}
	return nil
}

// floods is fails for a peer that wrote so much that the Failure can be lost with what was not read.
func floods(code wire.Code) answer {
	return func(p *peer) error {
		err := ends(p)
		if err == nil && p.failure != nil {
			err = p.hasFailed(code)
		}
		return err
	}
}

// lives wants the connection to go on.
func lives(p *peer) error {
	const id = 0xabcdef
	p.send(&wire.Ping{Id: id})
	err := p.await(func(b proto.Message) bool {
		pong, ok := b.(*wire.Pong)
		return ok && pong.Id == id
	})
	if errors.Is(err, io.EOF) {
		return wrong("closed (failure %v)", p.failure)
	}
	return err
}

// refused wants an Opened with a code, and the connection to go on.
func refused(code wire.Code) answer {
	return func(p *peer) error {
		if err := lives(p); err != nil {
			return err
		}
		if p.opened == nil || p.opened.Code != code {
			return wrong("was answered with %v", p.opened)
		}
		return nil
	}
}

// either wants one of two answers that the peer cannot choose between.
func either(p *peer) error {
	err := lives(p)
	var u *unexpected
	if errors.As(err, &u) && u.what == goesOn {
		return err
	}
	return nil
}

// anything is for peers that do not wait for an answer.
func anything(*peer) error { return nil }
