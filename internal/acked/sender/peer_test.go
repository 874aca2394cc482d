package sender

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// peer is a listener that keeps to a plan, and notes what it hears.
type peer struct {
	credit                    uint64 // in messages, for each stream
	settles, rejects, returns bool

	heard
	conn net.Conn // nil before the Sender has connected
}

func (p *peer) note(what any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frames = append(p.frames, what)
}

// times counts what it has heard of one kind.
func (p *peer) times(kind string) int {
	return p.count(func(f any) bool { return kindOf(f) == kind })
}

// kindOf is the last part of the name of a frame's type, or the text that was noted.
func kindOf(f any) string {
	if text, ok := f.(string); ok {
		return text
	}
	name := fmt.Sprintf("%T", f)
	return name[strings.LastIndex(name, ".")+1:]
}

// serve takes one connection of the network, until that ends or the test does.
func (p *peer) serve(t *testing.T, network *testkit.Network) {
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	go func() { // ends with the connection, or over
		select {
		case p.conn = <-network.Servers:
			p.read(t)
		case <-over:
		}
	}()
}

func (p *peer) read(t *testing.T) {
	enc := acktest.FuzzEncoder(t)
	r := framing.NewReader(p.conn, enc.Codec)
	for {
		payload, err := r.Next()
		if err != nil {
			return
		}
		if payload, err = enc.Verify(payload); err != nil {
			return
		}
		frame, err := session.Decode(payload)
		if err != nil {
			return
		}
		p.note(frame)
		p.answer(t, frame)
	}
}

func (p *peer) say(t *testing.T, frames ...*wire.Frame) {
	s := acktest.Script{T: t, Enc: acktest.FuzzEncoder(t)}
	for _, f := range frames {
		s.Control(f)
	}
	_, _ = p.conn.Write(s.Out)
}

func (p *peer) ack(t *testing.T, a session.AckFrame) {
	out, _ := acktest.FuzzEncoder(t).AppendAck(nil, a)
	_, _ = p.conn.Write(out)
}

func (p *peer) answer(t *testing.T, frame any) {
	switch f := frame.(type) {
	case *wire.Hello:
		w := welcome()
		w.GetWelcome().Features = []string{session.FeatureMove}
		p.say(t, w)
	case *wire.Open:
		p.say(t, &wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{Handle: f.Handle, Next: f.Base}}})
		p.ack(t, session.AckFrame{Handle: f.Handle, Next: f.Base, Messages: p.credit, Bytes: 1000 * p.credit})
	case *session.PublishFrame:
		ack := session.AckFrame{Handle: f.Handle, Next: f.First + uint64(len(f.Messages)), Messages: p.credit, Bytes: 1000 * p.credit}
		if p.settles {
			ack.Settled = []uint64{f.First, ack.Next - 1}
		}
		p.ack(t, ack)
		if p.rejects {
			p.say(t, &wire.Frame{Body: &wire.Frame_Reject{Reject: &wire.Reject{Handle: f.Handle, Sequence: f.First, Reason: "no"}}})
		}
	case *wire.Revoke:
		if p.returns {
			p.say(t, &wire.Frame{Body: &wire.Frame_Returned{Returned: &wire.Returned{Handle: f.Handle, Next: 2, Returned: []uint64{1, 1}}}})
		}
	}
}
