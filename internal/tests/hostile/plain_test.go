package hostile

import (
	"bytes"
	"time"
)

// plainFrame is a message as BuffStreams frames it: a zigzag varint of the length, zeros up to the width, the message.
func plainFrame(message []byte) []byte {
	n := 2 * len(message)
	return append([]byte{byte(n&0x7f) | 0x80*b2i(n > 0x7f), byte(n>>7&0x7f) | 0x80*b2i(n > 0x3fff), byte(n >> 14)}, message...)
}

func b2i(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// plains are attacks on a listener of the plain protocol. It never answers: it takes what it can read, or closes.
func plains() []attack {
	good := plainFrame([]byte("a stranger's message"))
	return []attack{
		{name: "plain: length over the limit", does: says([]byte{0x82, 0x40, 0}), want: hangsUp},
		{name: "plain: negative length", does: says([]byte{1, 0, 0}), want: hangsUp},
		{name: "plain: padding that is none", does: says([]byte{0x06, 0xff, 0xff}), want: hangsUp},
		{name: "plain: endless varint", does: says([]byte{0x80, 0x80, 0x80}), want: hangsUp},
		{name: "plain: largest varint", does: says(bytes.Repeat([]byte{0xff}, 16)), want: hangsUp},
		{name: "plain: HTTP", does: says([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), want: hangsUp},
		{name: "plain: TLS", does: says([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")), want: hangsUp},
		{name: "plain: good, then garbage", does: says(good, good, []byte{0x83, 0xff, 0xff}), want: hangsUp},
		{name: "plain: cut at each byte", does: func(p *peer) { p.write(good[:p.turn%len(good)]); p.halfClose() }, want: hangsUp},
		{name: "plain: reset in a message", does: func(p *peer) { p.write(good[:10]); p.reset() }, want: anything},
		{name: "plain: empty messages", rare: 2, does: func(p *peer) { p.write(bytes.Repeat(plainFrame(nil), 3000)); p.halfClose() }, want: hangsUp},
		{name: "plain: random bytes", does: func(p *peer) { p.write(p.noise(300)); p.halfClose() }, want: hangsUp},
		{name: "plain: message without its end", does: says(good[:9]), want: hangsUp, slow: true},
		{name: "plain: byte by byte", want: hangsUp, slow: true, does: func(p *peer) {
			for _, b := range plainFrame(bytes.Repeat([]byte("x"), 100)) {
				if _, err := p.conn.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}},
	}
}
