package hostile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// victim is what an eavesdropper knows of the legitimate publisher.
type victim struct {
	Publisher, Secret []byte
	Epoch, Stream     uint64
	Topic             string
}

// strangersTopic has a consumer that handles everything; desertedTopic has none.
const (
	strangersTopic = "strangers"
	desertedTopic  = "deserted"
)

func (p *peer) greet() {
	p.send(hello())
	_ = p.await(func(b proto.Message) bool { _, ok := b.(*wire.Welcome); return ok })
	p.frames = 0
}

// own is an identity that no other attack has.
func (p *peer) own(topic string) *wire.Open {
	id := make([]byte, 16)
	copy(id[8:], "stranger")
	binary.BigEndian.PutUint64(id, p.rng.Uint64())
	return &wire.Open{
		Handle: 1, Publisher: id, Secret: bytes.Repeat([]byte{7}, 16), Epoch: 5, Stream: 1, Topic: topic, Base: 1,
		WantMessages: 20, WantBytes: 4000, LeastBytes: 100,
	}
}

// opens opens a stream and waits for credit. It returns false when the listener had no room for it, or little: it may give the rest
// only to those who ask again.
func (p *peer) opens(o *wire.Open) bool {
	p.opened, p.limit = nil, nil
	p.send(o)
	defer p.stayAlive()()
	unpaid := o.WantMessages == 0 || o.Topic == desertedTopic
	err := p.await(func(proto.Message) bool {
		return p.opened != nil && (p.opened.Code != 0 || p.limit != nil || unpaid)
	})
	p.short = !unpaid && (p.limit == nil || p.limit.CreditMessages < min(5, o.WantMessages))
	return err == nil && p.opened.Code == 0 && !p.short
}

// stayAlive pings until the returned function is called: others may have all the credit for a while.
func (p *peer) stayAlive() (stop func()) {
	done := make(chan struct{})
	go func() { // ends with stop
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.send(&wire.Ping{Id: 1})
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

// envelope is a message that the consumer can tell from every other.
func (p *peer) envelope(seq int) []byte {
	b, err := proto.Marshal(&wire.Envelope{Uuid: fmt.Sprint(p.who, "#", seq), Payload: []byte("stranger")})
	if err != nil {
		panic(err)
	}
	return b
}

func (p *peer) publish(first uint64, gap bool, messages ...[]byte) {
	flags := uint32(2) // prompt
	if gap {
		flags |= 1
	}
	p.send(&wire.Publish{Handle: 1, First: first, Flags: flags, Messages: messages})
}

// welcomed is an attack that begins behind the greeting.
func welcomed(name string, want answer, does func(*peer)) attack {
	return attack{name: name, want: want, does: func(p *peer) { p.greet(); does(p) }}
}

// streaming is one that begins with a stream of its own, which has credit. A listener that has no room for a stranger's
// stream at the moment says so, and the attack is over.
func streaming(name string, want answer, does func(*peer)) attack {
	return attack{name: name, does: func(p *peer) {
		p.greet()
		if p.opens(p.own(strangersTopic)) {
			does(p)
		}
	}, want: func(p *peer) error {
		if p.short || p.opened != nil && p.opened.Code == wire.Code_CODE_LIMIT {
			return lives(p)
		}
		return want(p)
	}}
}

// ended wants a connection to be over whose stream another has taken.
func ended(p *peer) error {
	if p.outlived {
		return wrong("goes on without its stream")
	}
	return closes(p)
}

var protocolFault = fails(wire.Code_CODE_PROTOCOL)

// frames are attacks with frames by who was welcomed.
func frames(v victim) []attack {
	all := []attack{
		welcomed("frame over max_frame", hangsUp, says(binary.BigEndian.AppendUint32(nil, leastFrame+1))),
		welcomed("whole frame over max_frame", hangsUp, func(p *peer) {
			p.write(sealed(append(payloadOf(&wire.Ping{Id: 1}), unknown(leastFrame)...)))
		}),
		welcomed("max_frame declared, little sent", hangsUp, func(p *peer) {
			p.write(append(binary.BigEndian.AppendUint32(nil, leastFrame), 1, 2, 3))
			p.halfClose()
		}),
		welcomed("empty frames", hangsUp, says(bytes.Repeat(framed(nil), 500))),
		welcomed("empty frames with checksums", floods(wire.Code_CODE_PROTOCOL), says(bytes.Repeat(sealed(nil), 500))),
		welcomed("random bytes behind a greeting", hangsUp, func(p *peer) { p.write(p.noise(200)) }),
		welcomed("ping with a flipped bit", hangsUp, func(p *peer) { p.write(damaged(frameOf(&wire.Ping{Id: 300}), p.turn)) }),
		welcomed("publish with a flipped bit", hangsUp, func(p *peer) {
			p.write(damaged(frameOf(&wire.Publish{Handle: 1, First: 1, Messages: [][]byte{[]byte("abc")}}), p.turn))
		}),
		welcomed("publish on a handle of others", protocolFault, func(p *peer) { p.publish(uint64(p.turn), false, []byte("x")) }),
		welcomed("want on a handle of others", protocolFault, says(frameOf(&wire.Want{Handle: 1, Messages: 1}))),
		welcomed("reject seen on a handle of others", protocolFault, says(frameOf(&wire.RejectSeen{Handle: 1, Sequence: 1}))),
		welcomed("handle 2^64-1", protocolFault, says(frameOf(&wire.Want{Handle: math.MaxUint64, Messages: 1}))),
		welcomed("release of others", lives, says(frameOf(&wire.Release{Handle: 1}), frameOf(&wire.Release{Handle: 0}))),
		welcomed("pongs that nobody asked for", lives, says(frameOf(&wire.Pong{Id: 1}), frameOf(&wire.Pong{Id: 7}))),
		welcomed("ugly failure", closes, says(frameOf(&wire.Failure{Code: 99, Reason: string(bytes.Repeat([]byte(ugly), 100))}))),
		welcomed("publish of nothing", protocolFault, func(p *peer) { p.publish(1, false) }),
		welcomed("publish of 4097", protocolFault, func(p *peer) { p.publish(1, false, make([][]byte, 4097)...) }),
		welcomed("fields behind the messages", protocolFault, says(sealed([]byte("\x2a\x07\x08\x01\x22\x01x\x10\x01")))),
		welcomed("publish with a field that is no number", protocolFault, says(sealed([]byte("\x2a\x08\x08\x01\x3a\x01y\x22\x01x")))),
		welcomed("ack with a field that is no number", protocolFault, says(sealed([]byte("\x32\x05\x08\x01\x3a\x01y")))),
		welcomed("ping flood", either, says(bytes.Repeat(frameOf(&wire.Ping{Id: 5}), 3000))),
		{name: "ping flood that reads nothing", want: anything, rare: 4, slow: true, does: func(p *peer) {
			p.greet()
			flood := bytes.Repeat(frameOf(&wire.Ping{Id: math.MaxUint64}), 4096)
			for range 100 { // ends when the listener closes, or its patience is over
				if _, err := p.conn.Write(flood); err != nil {
					return
				}
			}
		}},
		{name: "silence behind a greeting", want: closes, slow: true, does: (*peer).greet},
		{name: "frame byte by byte", want: closes, slow: true, does: func(p *peer) {
			p.greet()
			dribbles(frameOf(&wire.Failure{Reason: "0123456789012345678901234567890123456789"}))(p)
		}},
	}
	for _, body := range []proto.Message{hello(), &wire.Welcome{}, &wire.Opened{Handle: 1, Next: 1}, &wire.Ack{Handle: 1, Next: 1 << 40},
		&wire.Reject{Handle: 1, Sequence: 1}, &wire.Goaway{}} {
		name := string(body.ProtoReflect().Descriptor().Name())
		all = append(all, welcomed(name+" from a sender", protocolFault, says(frameOf(body))))
	}
	all = append(all, malformed("behind a greeting", (*peer).greet)...)
	return append(append(all, opens(v)...), publishes()...)
}

// opens are attacks with Open.
func opens(v victim) []attack { //nolint:funlen // a table
	malformed := func(name string, change func(*wire.Open)) attack {
		return welcomed("open with "+name, refused(wire.Code_CODE_PROTOCOL), func(p *peer) {
			o := p.own(strangersTopic)
			change(o)
			p.send(o)
		})
	}
	fenced := func(name string, change func(*wire.Open)) attack {
		return welcomed(name, refused(wire.Code_CODE_FENCED), func(p *peer) {
			o := &wire.Open{
				Handle: 1, Publisher: v.Publisher, Secret: bytes.Repeat([]byte{1}, 16), Epoch: v.Epoch, Stream: v.Stream,
				Topic: v.Topic, Base: 1, WantMessages: 100, WantBytes: 10_000,
			}
			change(o)
			p.send(o)
		})
	}
	return []attack{
		malformed("an id of 15", func(o *wire.Open) { o.Publisher = o.Publisher[1:] }),
		malformed("no id", func(o *wire.Open) { o.Publisher = nil }),
		malformed("a secret of 17", func(o *wire.Open) { o.Secret = make([]byte, 17) }),
		malformed("a name of 1025", func(o *wire.Open) { o.Topic = string(bytes.Repeat([]byte("x"), 1025)) }),
		fenced("publisher of others", func(*wire.Open) {}),
		fenced("publisher of others, next epoch", func(o *wire.Open) { o.Epoch++ }),
		fenced("publisher of others, last epoch", func(o *wire.Open) { o.Epoch = math.MaxUint64 }),
		fenced("publisher of others, another stream", func(o *wire.Open) { o.Stream, o.Topic = 1<<40, desertedTopic }),
		fenced("publisher of others, forged base", func(o *wire.Open) { o.Base = math.MaxUint64 }),
		welcomed("publisher of others, its secret and no epoch", refused(wire.Code_CODE_PROTOCOL), func(p *peer) {
			p.send(&wire.Open{Handle: 1, Publisher: v.Publisher, Secret: v.Secret, Stream: v.Stream, Topic: v.Topic, Base: 1})
		}),
		fenced("publisher of others, nearly its secret", func(o *wire.Open) {
			copy(o.Secret, v.Secret)
			o.Secret[15] ^= 1
		}),
		welcomed("topic that is no text", protocolFault, says(sealed([]byte("\x1a\x03\x32\x01\xff")))),
		welcomed("ugly topic", lives, func(p *peer) { p.send(p.own(ugly + "/../../etc/passwd")) }),
		welcomed("old epoch of its own", refused(wire.Code_CODE_FENCED), func(p *peer) {
			o := p.own(desertedTopic)
			if !p.opens(o) { // no room at the moment
				p.opened = &wire.Opened{Code: wire.Code_CODE_FENCED}
				return
			}
			o.Handle, o.Epoch = 2, 4
			p.opens(o)
		}),
		welcomed("handle opened twice", either, func(p *peer) { o := p.own(desertedTopic); p.send(o); p.send(o) }),
		welcomed("stream opened again and again", lives, func(p *peer) {
			o := p.own(desertedTopic)
			for h := range uint64(50) {
				o.Handle = h + 1
				p.send(o)
			}
		}),
		welcomed("base 0", lives, func(p *peer) { o := p.own(desertedTopic); o.Base = 0; p.send(o) }),
		welcomed("publishers that claim to return", lives, func(p *peer) {
			for h := range uint64(100) {
				o := p.own(desertedTopic)
				o.Handle, o.Base = h+1, 1<<40
				p.send(o)
			}
		}),
		{name: "65k opens", rare: 8, want: floods(wire.Code_CODE_LIMIT), does: func(p *peer) {
			p.within(10 * patience) // so many answers take a loaded machine longer than one
			p.greet()
			o := p.own(desertedTopic)
			o.WantMessages = 0
			go func() { // ends when the connection does
				for h := range uint64(65_536) {
					o.Handle, o.Stream = h+1, h+1
					if _, err := p.conn.Write(frameOf(o)); err != nil {
						return
					}
				}
			}()
		}},
		{name: "many publishers on a connection", rare: 4, want: lives, does: func(p *peer) {
			p.greet()
			for h := range uint64(200) {
				o := p.own(desertedTopic)
				o.Handle = h + 1
				p.send(o)
			}
		}},
		{name: "many topics on a connection", rare: 4, want: lives, does: func(p *peer) {
			p.greet()
			for h := range uint64(200) {
				o := p.own(fmt.Sprint("topic of a stranger ", p.who, h))
				o.Handle = h + 1
				p.send(o)
			}
		}},
	}
}

// publishes are attacks by who has a stream with credit.
func publishes() []attack { //nolint:funlen // a table
	return []attack{
		streaming("publish without credit", protocolFault, func(p *peer) {
			p.send(&wire.Want{Handle: 1, SeenMessages: p.limit.CreditMessages})
			p.publish(1, false, p.envelope(1))
		}),
		streaming("more messages than credit", protocolFault, func(p *peer) {
			p.publish(1, false, make([][]byte, min(4096, p.limit.CreditMessages+1))...)
		}),
		streaming("more bytes than credit", protocolFault, func(p *peer) {
			half := int(p.limit.CreditBytes / 2)
			if half != 64<<10 || p.limit.CreditMessages != 512 { // others have much of the window: when they leave, more is topped up
				p.publish(0, false, p.envelope(1))
				return
			}
			p.publish(1, false, filling(half-6)...) // not so much that more credit is given
			p.publish(5, false, filling(half+10)...)
		}),
		streaming("sequence 0", protocolFault, func(p *peer) { p.publish(0, false, p.envelope(1)) }),
		streaming("sequence 0 with a gap", protocolFault, func(p *peer) { p.publish(0, true, p.envelope(1)) }),
		streaming("sequences missing", protocolFault, func(p *peer) { p.publish(5, false, p.envelope(1)) }),
		streaming("sequence 2^64-1", protocolFault, func(p *peer) { p.publish(math.MaxUint64, true, p.envelope(1)) }),
		streaming("beyond the last sequence", protocolFault, func(p *peer) {
			p.publish(math.MaxUint64-2, true, p.envelope(1), p.envelope(2), p.envelope(3))
		}),
		streaming("the last sequence", lives, func(p *peer) { p.publish(math.MaxUint64-1, true, p.envelope(1)) }),
		streaming("sequences missing above a forged base", protocolFault, func(p *peer) {
			o := p.own(strangersTopic)
			o.Handle, o.Base = 2, 100
			if p.opens(o) {
				p.send(&wire.Publish{Handle: 2, First: 101, Messages: [][]byte{p.envelope(1)}})
			}
		}),
		streaming("replay", lives, func(p *peer) {
			for range 5 {
				p.publish(1, false, p.envelope(1), p.envelope(2))
			}
		}),
		streaming("replay on another connection of its own", ended, func(p *peer) {
			p.publish(1, false, p.envelope(1))
			other, err := dialFrom(p.conn.LocalAddr(), p.conn.RemoteAddr().String())
			if err != nil {
				p.reset()
				return
			}
			defer func() { _ = other.Close() }()
			thief := newPeer(other, p.turn)
			thief.is(p.who) // with the same identity
			thief.within(patience)
			thief.greet()
			if thief.opens(thief.own(strangersTopic)) && thief.opened.Next > 1 { // it remembers
				thief.publish(1, false, p.envelope(1))
				_ = lives(thief)
				p.outlived = lives(p) == nil
			}
			_ = ends(p)
		}),
		streaming("forged want", lives, func(p *peer) {
			for range 100 {
				p.send(&wire.Want{
					Handle: 1, Messages: math.MaxUint64, Bytes: math.MaxUint64, LeastBytes: math.MaxUint64, SeenMessages: p.rng.Uint64() | 1<<40,
				})
			}
		}),
		streaming("want flood", lives, func(p *peer) {
			p.write(bytes.Repeat(frameOf(&wire.Want{
				Handle: 1, Messages: math.MaxUint64, Bytes: math.MaxUint64, SeenMessages: p.limit.CreditMessages,
			}), 500))
		}),
		streaming("padded numbers", lives, says(sealed([]byte("\x2a\x0b\x08\x81\x80\x00\x10\x81\x80\x00\x22\x01x")))),
		streaming("unknown number in a publish", lives, says(sealed([]byte("\x2a\x09\x08\x01\x10\x01\x38\x09\x22\x01x")))),
		streaming("messages that are too large", lives, func(p *peer) {
			p.publish(1, false, make([]byte, maxMessage+1))
			p.publish(2, false, make([]byte, maxMessage+1))
		}),
		streaming("messages that nobody can decode", lives, func(p *peer) {
			p.publish(1, false, []byte(ugly), []byte{0xff}, []byte{0x0a, 0x7f})
		}),
		streaming("reject seen of everything", lives, func(p *peer) {
			for seq := range uint64(200) {
				p.send(&wire.RejectSeen{Handle: 1, Sequence: seq})
			}
			p.send(&wire.RejectSeen{Handle: 1, Sequence: math.MaxUint64})
		}),
		streaming("release of what is not settled", lives, func(p *peer) {
			p.publish(1, false, make([]byte, maxMessage+1)) // its rejection is not confirmed
			p.send(&wire.Release{Handle: 1})
			p.send(&wire.Release{Handle: 1})
		}),
		streaming("publish behind a release", protocolFault, func(p *peer) {
			p.send(&wire.Release{Handle: 1})
			p.publish(1, false, p.envelope(1))
		}),
		streaming("garbage behind a good beginning", closes, func(p *peer) {
			p.publish(1, false, p.envelope(1))
			p.write(p.noise(100))
		}),
		{name: "session cut at each byte", want: anything, does: func(p *peer) {
			p.greet()
			s := session(p)
			p.write(s[:p.turn%(len(s)+1)])
			if p.turn%2 == 0 {
				p.reset()
			}
			p.halfClose()
			_ = ends(p)
		}},
		{name: "session with a flipped bit", want: either, does: func(p *peer) {
			p.greet()
			s := session(p)
			s[p.turn/8%len(s)] ^= 1 << (p.turn % 8)
			p.write(s)
			p.halfClose()
			_ = ends(p)
		}},
		{name: "session in pieces", want: either, does: func(p *peer) {
			p.greet()
			for piece := range slices.Chunk(session(p), 7) {
				p.write(piece)
				time.Sleep(time.Millisecond)
			}
		}},
		{name: "credit that is kept", slow: true, rare: 2, want: either, does: func(p *peer) {
			p.greet()
			o := p.own(strangersTopic)
			o.WantMessages, o.WantBytes = math.MaxUint64, math.MaxUint64
			if p.opens(o) {
				time.Sleep(time.Second)
			}
		}},
	}
}

// unknown is a field that no frame has, of n bytes and a few.
func unknown(n int) []byte {
	return append(binary.AppendUvarint([]byte{0x9a, 0x06}, uint64(n)), make([]byte, n)...)
}

// filling is four messages that are size bytes as credit counts them.
func filling(size int) (out [][]byte) {
	for i := range 4 {
		n := size / (4 - i)
		size -= n
		out = append(out, make([]byte, n-3)) // a tag, and a length of two bytes
	}
	return out
}

// session is frames of a stream on a topic without a consumer, so that none of them depends on an answer.
func session(p *peer) []byte {
	o := p.own(desertedTopic)
	s := frameOf(o)
	s = append(s, frameOf(&wire.Want{Handle: 1, Messages: 3, Bytes: 100})...)
	s = append(s, frameOf(&wire.RejectSeen{Handle: 1, Sequence: 3})...)
	s = append(s, frameOf(&wire.Ping{Id: 9})...)
	return append(s, frameOf(&wire.Release{Handle: 1})...)
}
