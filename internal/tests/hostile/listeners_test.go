package hostile

import (
	"bytes"
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// traps are what a listener can do to a publisher that dials it. The answers are of the publisher's side: it closes, or it
// goes on, and what it has not been told the fate of it keeps.
func traps() []attack {
	all := []attack{
		{name: "trap: nothing", does: func(*peer) {}, want: ends, slow: true, rare: 2},
		{name: "trap: reset", does: (*peer).reset, want: anything},
		{name: "trap: close", does: func(p *peer) { _ = p.conn.Close() }, want: anything},
		{name: "trap: random bytes", does: func(p *peer) { p.write(p.noise(200)) }, want: ends},
		{name: "trap: HTTP", does: says([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")), want: ends},
		{name: "trap: TLS alert", does: says([]byte{0x15, 3, 3, 0, 2, 2, 40}), want: ends},
		{name: "trap: empty frame", does: says(framed(nil)), want: ends},
		{name: "trap: frame of 4 GiB", does: says([]byte{0xff, 0xff, 0xff, 0xff}), want: ends},
		{name: "trap: welcome with a wrong checksum", does: func(p *peer) { p.write(damaged(frameOf(welcome()), p.turn)) }, want: gone},
		{name: "trap: version 0", does: says(frameOf(&wire.Welcome{MaxFrame: leastFrame, MaxMessage: 1})), want: gone},
		{name: "trap: version 2", does: says(frameOf(&wire.Welcome{Version: 2, MaxFrame: leastFrame, MaxMessage: 1})), want: gone},
		{name: "trap: small max_frame", does: says(frameOf(&wire.Welcome{Version: 1, MaxFrame: leastFrame - 1, MaxMessage: 1})), want: gone},
		{name: "trap: second welcome", does: says(frameOf(welcome()), frameOf(welcome())), want: gone},
		{name: "trap: max_frame of 2^64-1", does: says(frameOf(&wire.Welcome{Version: 1, MaxFrame: math.MaxUint64, MaxMessage: math.MaxUint64})), want: lives},
		{name: "trap: opened that was not asked for", does: says(frameOf(welcome()), frameOf(&wire.Opened{Handle: 1 << 60, Next: 1})), want: gone},
		{name: "trap: opened handle 0", does: says(frameOf(welcome()), frameOf(&wire.Opened{Next: 1})), want: gone},
		{name: "trap: goaway", does: says(frameOf(welcome()), frameOf(&wire.Goaway{Reason: ugly}), frameOf(&wire.Ping{Id: 1})), want: lives},
		{name: "trap: ping flood", does: says(frameOf(welcome()), bytes.Repeat(frameOf(&wire.Ping{Id: 3}), 1000)), want: either},
		{name: "trap: welcome cut at each byte", does: func(p *peer) { w := frameOf(welcome()); p.write(w[:p.turn%len(w)]); p.halfClose() }, want: ends},
	}
	for i, body := range everyBody() {
		name := string(body.ProtoReflect().Descriptor().Name())
		if i != 1 {
			all = append(all, attack{name: "trap: " + name + " first", does: says(frameOf(body)), want: ends})
		}
		switch body.(type) {
		case *wire.Hello, *wire.Open, *wire.Publish, *wire.Want, *wire.RejectSeen, *wire.Release:
			all = append(all, attack{name: "trap: " + name + " from a listener", does: says(frameOf(welcome()), frameOf(body)), want: gone})
		}
	}
	for code := range wire.Code(12) {
		all = append(all, attack{name: "trap: failure " + code.String(), want: gone, does: says(frameOf(welcome()), frameOf(&wire.Failure{
			Code: code, Reason: string(bytes.Repeat([]byte(ugly), 50)),
		}))})
	}
	return append(append(all, openTraps()...), creditTraps()...)
}

func welcome() *wire.Welcome {
	return &wire.Welcome{Version: 1, MaxFrame: leastFrame, MaxMessage: maxMessage}
}

// asked greets a publisher and waits for its Open, which it answers with what change makes of a good answer.
func asked(name string, want answer, change func(*wire.Opened), then ...proto.Message) attack {
	return attack{name: "trap: " + name, want: want, does: func(p *peer) {
		p.send(welcome())
		handle := p.asks()
		o := &wire.Opened{Handle: handle, Next: p.base}
		if change != nil {
			change(o)
		}
		p.send(o)
		for _, body := range then {
			m := proto.Clone(body)
			switch b := m.(type) {
			case *wire.Opened:
				b.Handle = handle
			case *wire.Ack:
				b.Handle = handle
			case *wire.Reject:
				b.Handle = handle
			}
			p.send(m)
		}
	}}
}

// asks reads up to an Open and returns its handle.
func (p *peer) asks() (handle uint64) {
	_ = p.await(func(b proto.Message) bool {
		o, ok := b.(*wire.Open)
		if ok {
			handle, p.base = o.Handle, o.Base
		}
		return ok
	})
	return handle
}

func openTraps() []attack {
	return []attack{
		asked("opened far ahead", lives, // its stream is refused alone
			func(o *wire.Opened) { o.Next = 1 << 60 }),
		asked("opened at 2^64-1", lives, func(o *wire.Opened) { o.Next = math.MaxUint64 }),
		asked("settled that are no pairs", gone, func(o *wire.Opened) { o.Settled = []uint64{1} }),
		asked("settled what was never sent", lives, func(o *wire.Opened) { o.Settled = []uint64{1, 1 << 50} }),
		asked("settled backwards", gone, func(o *wire.Opened) { o.Settled = []uint64{5, 2} }),
		asked("settled 0", gone, func(o *wire.Opened) { o.Settled = []uint64{0, 0} }),
		asked("opened twice", gone, nil, &wire.Opened{Next: 1}),
		asked("refused for a while", lives, func(o *wire.Opened) { o.Code = wire.Code_CODE_LIMIT }),
		asked("refused: fenced", lives, func(o *wire.Opened) { o.Code, o.Reason = wire.Code_CODE_FENCED, ugly }),
		asked("refused: forbidden", lives, func(o *wire.Opened) { o.Code, o.Reason = wire.Code_CODE_FORBIDDEN, ugly }),
		asked("refused with an unknown code", lives, func(o *wire.Opened) { o.Code, o.Reason = 99, string(bytes.Repeat([]byte(ugly), 1000)) }),
		asked("topic gone", lives, nil, &wire.Reject{Code: wire.Code_CODE_TOPIC_GONE, Reason: ugly}),
		{name: "trap: ack before opened", want: gone, does: func(p *peer) {
			p.send(welcome())
			p.send(&wire.Ack{Handle: p.asks(), Next: 1})
		}},
		{name: "trap: reject before opened", want: gone, does: func(p *peer) {
			p.send(welcome())
			p.send(&wire.Reject{Handle: p.asks(), Sequence: 1})
		}},
		{name: "trap: frame that is declared and never comes", slow: true, rare: 2, want: ends, does: func(p *peer) {
			p.write(append(frameOf(welcome()), binary.BigEndian.AppendUint32(nil, leastFrame)...))
		}},
		{name: "trap: wrong checksum behind a greeting", want: gone, does: func(p *peer) {
			p.send(welcome())
			p.write(damaged(frameOf(&wire.Ping{Id: 300}), p.turn))
		}},
		{name: "trap: frame over max_frame", want: gone, does: says(frameOf(welcome()), binary.BigEndian.AppendUint32(nil, 1<<24))},
	}
}

func creditTraps() []attack {
	much := &wire.Ack{CreditMessages: 1000, CreditBytes: 1 << 20}
	return []attack{
		asked("ack of what was not sent", gone, nil, &wire.Ack{Next: 1 << 60}),
		asked("settled above all", gone, nil, &wire.Ack{Settled: []uint64{1 << 60, 1 << 61}}),
		asked("odd settled", gone, nil, &wire.Ack{Settled: []uint64{1}}),
		asked("credit in messages alone", gone, nil, &wire.Ack{CreditMessages: 5}),
		asked("credit in bytes alone", gone, nil, &wire.Ack{CreditBytes: 5}),
		asked("credit that falls", gone, nil, much, &wire.Ack{CreditMessages: 1, CreditBytes: 1 << 20}),
		asked("credit of 2^64-1", lives, nil, &wire.Ack{CreditMessages: math.MaxUint64, CreditBytes: math.MaxUint64}),
		asked("reject of what was not sent", gone, nil, &wire.Reject{Sequence: 1 << 60}),
		{name: "trap: ack that falls", want: gone, does: func(p *peer) {
			first := p.takes()
			p.send(&wire.Ack{Handle: p.handle, Next: first + 1})
			p.send(&wire.Ack{Handle: p.handle, Next: first})
		}},
		{name: "trap: reject of everything", want: lives, does: func(p *peer) {
			first := p.takes()
			p.send(&wire.Reject{Handle: p.handle, Sequence: first, Code: wire.Code_CODE_FAILED, Reason: ugly})
			p.send(&wire.Reject{Handle: p.handle, Sequence: first, Code: wire.Code_CODE_FAILED, Reason: ugly})
		}},
		{name: "trap: settled before it is received", want: either, does: func(p *peer) {
			first := p.takes()
			p.send(&wire.Ack{Handle: p.handle, Settled: []uint64{first, first}})
		}},
		{name: "no trap", want: lives, does: func(p *peer) { // what the publisher has is handled
			first := p.takes()
			p.send(&wire.Ack{Handle: p.handle, Next: first + 1, Settled: []uint64{first, first}})
		}},
	}
}

// takes greets a publisher, gives it much credit and waits for a message, whose sequence it returns.
func (p *peer) takes() (first uint64) {
	p.send(welcome())
	p.handle = p.asks()
	p.send(&wire.Opened{Handle: p.handle, Next: p.base})
	p.send(&wire.Ack{Handle: p.handle, CreditMessages: 1, CreditBytes: 1 << 16})
	_ = p.await(func(b proto.Message) bool {
		m, ok := b.(*wire.Publish)
		if ok {
			first = m.First
		}
		return ok
	})
	return first
}
