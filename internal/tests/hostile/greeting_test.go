package hostile

import (
	"bytes"
	"strings"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// attack is one way to treat whom one is connected to, and what has to come of it.
type attack struct {
	name string
	does func(*peer)
	want answer
	slow bool // it takes seconds: few run at a time
	rare int  // it is made once in so many rounds; 0: in each
}

func hello() *wire.Hello { return &wire.Hello{Version: 1, MaxFrame: leastFrame, Agent: "stranger"} }

// says sends frames as they are.
func says(frames ...[]byte) func(*peer) {
	return func(p *peer) {
		for _, f := range frames {
			p.write(f)
		}
	}
}

// noise is bytes that never begin like a frame that a listener takes.
func (p *peer) noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(p.rng.Uint32())
	}
	b[0] |= 0x80
	return b
}

// greetings are attacks on a listener of the acked protocol by who was not welcomed yet.
func greetings() []attack {
	all := []attack{
		{name: "random bytes", does: func(p *peer) { p.write(p.noise(4 + p.rng.IntN(300))) }, want: hangsUp},
		{name: "TLS on a plaintext port", does: says([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")), want: hangsUp},
		{name: "HTTP", does: says([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), want: hangsUp},
		{name: "SSH", does: says([]byte("SSH-2.0-x\r\n")), want: hangsUp},
		{name: "empty frame", does: says(framed(nil)), want: hangsUp},
		{name: "many empty frames", does: says(bytes.Repeat(framed(nil), 1000)), want: hangsUp},
		{name: "frame of 4097 bytes", does: says([]byte{0, 0, 0x10, 1}), want: hangsUp},
		{name: "frame of 4 GiB", does: says([]byte{0xff, 0xff, 0xff, 0xff}), want: hangsUp},
		{name: "hello larger than 4096", does: says(frameOf(&wire.Hello{Version: 1, MaxFrame: leastFrame, Token: make([]byte, greetLimit)})), want: hangsUp},
		{name: "hello with a wrong checksum", does: says(damaged(frameOf(hello()), -1)), want: hangsUp},
		{name: "hello without a checksum", does: says(framed(payloadOf(hello()))), want: hangsUp},
		{name: "checksum alone", does: says(sealed(nil)), want: fails(wire.Code_CODE_PROTOCOL)},
		{name: "version 0", does: says(frameOf(&wire.Hello{MaxFrame: leastFrame})), want: fails(wire.Code_CODE_VERSION)},
		{name: "small max_frame", does: says(frameOf(&wire.Hello{Version: 1, MaxFrame: leastFrame - 1})), want: fails(wire.Code_CODE_PROTOCOL)},
		{name: "version of the future", does: says(frameOf(&wire.Hello{Version: 1<<32 - 1, MaxFrame: 1<<64 - 1})), want: lives},
		{name: "ugly agent and token", does: says(frameOf(&wire.Hello{
			Version: 1, MaxFrame: leastFrame, Agent: strings.Repeat(ugly, 40), Token: []byte(strings.Repeat(ugly, 40)),
		})), want: lives},
		{name: "agent that is no text", does: says(sealed([]byte("\x0a\x05\x08\x01\x22\x01\xff"))), want: fails(wire.Code_CODE_PROTOCOL)},
		{name: "unknown fields in hello", does: says(sealed(unknownField(payloadOf(hello())))), want: lives},
		{name: "hello twice", does: says(frameOf(hello()), frameOf(hello())), want: fails(wire.Code_CODE_PROTOCOL)},
		{name: "nothing", does: func(*peer) {}, want: hangsUp, slow: true},
		{name: "hello byte by byte", does: dribbles(frameOf(hello())), want: hangsUp, slow: true},
		{name: "hello without its end", does: func(p *peer) { f := frameOf(hello()); p.write(f[:p.turn%len(f)]) }, want: hangsUp, slow: true},
		{name: "connect and reset", does: (*peer).reset, want: anything},
		{name: "connect and half-close", does: (*peer).halfClose, want: hangsUp},
		{name: "hello cut at each byte", does: func(p *peer) {
			f := frameOf(hello())
			p.write(f[:p.turn%len(f)])
			p.halfClose()
		}, want: hangsUp},
		{name: "hello with a flipped bit", does: func(p *peer) { p.write(damaged(frameOf(hello()), p.turn)) }, want: hangsUp},
	}
	for _, body := range everyBody()[1:] {
		want := fails(wire.Code_CODE_PROTOCOL)
		name := string(body.ProtoReflect().Descriptor().Name())
		all = append(all, attack{name: name + " first", does: says(frameOf(body)), want: want})
	}
	return append(all, malformed("first", nil)...)
}

// dribbles writes a byte at a time, so slowly that it never gets through; it ends with the connection.
func dribbles(frame []byte) func(*peer) {
	return func(p *peer) {
		for _, b := range frame[:len(frame)-1] {
			if _, err := p.conn.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(150 * time.Millisecond)
		}
	}
}

// damaged flips one bit of a frame's payload or checksum; that of a negative number is the last.
func damaged(frame []byte, bit int) []byte {
	frame = bytes.Clone(frame)
	n := (len(frame) - 4) * 8
	if bit %= n; bit < 0 {
		bit += n
	}
	frame[4+bit/8] ^= 1 << (bit % 8)
	return frame
}

// unknownField adds field 99 to the body of a payload.
func unknownField(payload []byte) []byte {
	out := []byte{payload[0], payload[1] + 3}
	return append(append(out, payload[2:]...), 0x98, 0x06, 7)
}

// malformed is every body's tag with something behind it that is no such body, and tags of no body at all. after leads up
// to it.
func malformed(when string, after func(*peer)) []attack {
	var all []attack
	add := func(name string, payload []byte) {
		all = append(all, attack{name: name + " " + when, want: fails(wire.Code_CODE_PROTOCOL), does: func(p *peer) {
			if after != nil {
				after(p)
			}
			p.write(sealed(payload))
		}})
	}
	for i, body := range everyBody() {
		name, tag := string(body.ProtoReflect().Descriptor().Name()), byte(i+1)<<3
		add("truncated "+name, []byte{tag | 2, 9, 8, 1})
		add("length of 10 bytes of "+name, append([]byte{tag | 2}, bytes.Repeat([]byte{0xff}, 11)...))
		add("garbage in "+name, []byte{tag | 2, 3, 0xff, 0xff, 0xff})
		add("wrong wire type of "+name, []byte{tag, 1})
		add("something behind "+name, []byte{tag | 2, 0, 0xff})
	}
	add("unknown frame", []byte{0x92, 0x01, 0})
	add("field 0", []byte{0, 1})
	add("open group", []byte{0x2b, 0x33})
	return all
}
