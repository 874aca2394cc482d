package session

import (
	"bytes"
	"fmt"
	"strconv"
	"testing"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// content is the message of a stream with sequence seq: it tells where it belongs, padded to at least size bytes.
func content(topic string, seq uint64, size int) []byte {
	m := make([]byte, 0, max(size, len(topic)+22))
	m = append(append(m, topic...), '/')
	m = append(strconv.AppendUint(m, seq, 10), '|')
	if n := len(m); n < size {
		m = m[:size]
		m[n], m[size-1] = '<', '>'
	}
	return m
}

// remote is a model of a receiver: Inbound and a window, written plainly. What it sends is queued in out. It checks
// what it is sent against its own books, and reports the first thing that is wrong in broken.
type remote struct {
	t       testing.TB
	enc     Encoder
	welcome *wire.Welcome
	refuse  map[string]wire.Code // topics that Opened refuses
	manual  bool                 // credit is given by the test, not by serve

	room    Amount // of the window: not granted, and not taken by unsettled messages
	streams map[string]*inflow
	topics  []string // of streams, in the order in which they came
	handles map[uint64]*inflow
	line    []*inflow // those that wait for credit
	out     [][]byte  // payloads for the sender
	seen    []any     // frames that came, but for publishes
}

// inflow is one stream at the remote.
type inflow struct {
	topic  string
	in     *Inbound
	stored []Range // what a durable remote restarts from
	online bool
	want   *wire.Want // what it waits for, while it is in line

	limit, used Amount // the books: credit since Opened
	next        uint64 // lowest sequence not delivered to this state
	held        map[uint64]int
	order       []uint64 // deliveries of this state

	ever     map[uint64]int  // deliveries, by any state
	finished map[uint64]bool // settled, by any state
	refused  map[uint64]bool // rejected, by any state
}

func newRemote(t testing.TB, enc Encoder, room Amount) *remote {
	return &remote{
		t: t, enc: enc, room: room,
		welcome: &wire.Welcome{Version: Version, MaxFrame: uint64(MaxFrame(1 << 20)), MaxMessage: 1 << 20},
		streams: map[string]*inflow{}, handles: map[uint64]*inflow{}, refuse: map[string]wire.Code{},
	}
}

func (r *remote) send(f *wire.Frame) {
	out, err := r.enc.AppendControl(nil, f)
	if err != nil {
		r.t.Fatal(err)
	}
	r.out = append(r.out, payload(r.t, r.enc, out))
}

// receive takes one payload off the wire.
func (r *remote) receive(p []byte) error {
	p, err := r.enc.Verify(p)
	if err != nil {
		return err
	}
	frame, err := Decode(p)
	if err != nil {
		return err
	}
	if f, ok := frame.(*PublishFrame); ok {
		return r.publish(r.handles[f.Handle], f)
	}
	r.seen = append(r.seen, frame)
	switch f := frame.(type) {
	case *wire.Hello:
		r.send(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: r.welcome}})
	case *wire.Open:
		r.open(f)
	case *wire.Want:
		r.wanted(r.handles[f.Handle], f)
	case *wire.RejectSeen:
		r.handles[f.Handle].in.RejectSeen(f.Sequence)
	case *wire.Ping:
		r.send(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: f.Id}}})
	case *wire.Pong, *wire.Release:
	default:
		return fmt.Errorf("unexpected %T", frame)
	}
	return nil
}

// stream returns what a topic has, and fresh state where it has none.
func (r *remote) stream(topic string) *inflow {
	s := r.streams[topic]
	if s == nil {
		s = &inflow{topic: topic, ever: map[uint64]int{}, finished: map[uint64]bool{}, refused: map[uint64]bool{}}
		r.streams[topic] = s
		r.topics = append(r.topics, topic)
	}
	return s
}

func (r *remote) open(f *wire.Open) {
	if code := r.refuse[f.Topic]; code != 0 {
		r.send(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{Handle: f.Handle, Code: code, Reason: "refused"}}})
		return
	}
	s := r.stream(f.Topic)
	if s.in == nil {
		s.in, s.held, s.order = RestoreInbound(s.stored, f.Base), map[uint64]int{}, []uint64{}
		s.next = s.in.Next()
	}
	r.handles[f.Handle] = s
	opened, rejects := s.in.Attach(f.Handle, f.Base)
	s.next = max(s.next, f.Base)
	s.online, s.limit, s.used = true, Amount{}, Amount{}
	r.send(&wire.Frame{Body: &wire.Frame_Opened{Opened: opened}})
	for _, reject := range rejects {
		r.send(&wire.Frame{Body: &wire.Frame_Reject{Reject: reject}})
	}
	r.wanted(s, &wire.Want{Messages: f.WantMessages, Bytes: f.WantBytes, LeastBytes: f.LeastBytes})
}

// wanted takes unused credit back and puts the stream in line for new.
func (r *remote) wanted(s *inflow, f *wire.Want) {
	back, ok := s.in.Return(f.SeenMessages)
	if !ok {
		return
	}
	if back.Messages < 0 || back.Bytes < 0 || s.limit.Messages-back.Messages != s.used.Messages {
		r.t.Fatalf("%s gave back %+v of %+v, of which %+v were used", s.topic, back, s.limit, s.used)
	}
	r.giveBack(back)
	s.limit = s.used
	r.leave(s)
	if f.Messages > 0 {
		s.want = f
		r.line = append(r.line, s)
	}
	if !r.manual {
		r.serve()
	}
}

func (r *remote) giveBack(a Amount) {
	r.room.Messages += a.Messages
	r.room.Bytes += a.Bytes
}

func (r *remote) leave(s *inflow) {
	for i, other := range r.line {
		if other == s {
			r.line = append(r.line[:i], r.line[i+1:]...)
			return
		}
	}
}

// serve gives credit to the streams in line, in order, as far as there is room.
func (r *remote) serve() {
	for len(r.line) > 0 {
		s := r.line[0]
		a := Amount{
			Messages: min(int(s.want.Messages), r.room.Messages), Bytes: min(int(s.want.Bytes), r.room.Bytes),
		}
		if a.Messages < 1 || a.Bytes < int(s.want.LeastBytes) {
			return
		}
		r.line = r.line[1:]
		r.grant(s, a)
	}
}

// grant gives credit, which the next acks carry.
func (r *remote) grant(s *inflow, a Amount) {
	r.room.Messages -= a.Messages
	r.room.Bytes -= a.Bytes
	s.limit.Messages += a.Messages
	s.limit.Bytes += a.Bytes
	s.in.Grant(a)
}

// publish checks a Publish against the books and delivers it.
func (r *remote) publish(s *inflow, f *PublishFrame) error {
	if s == nil || !s.online {
		return fmt.Errorf("publish on handle %d, which is not open", f.Handle)
	}
	s.used.Messages += len(f.Messages)
	for _, m := range f.Messages {
		s.used.Bytes += EncodedSize(len(m))
	}
	if s.used.Messages > s.limit.Messages || s.used.Bytes > s.limit.Bytes {
		return fmt.Errorf("%s was sent %+v with credit for %+v", s.topic, s.used, s.limit)
	}
	for seq := s.next; seq < f.First; seq++ {
		if !f.Gap || !s.finished[seq] && !s.refused[seq] {
			return fmt.Errorf("%s was sent %d (gap %v) and never settled %d", s.topic, f.First, f.Gap, seq)
		}
	}
	fresh, first, dup, err := s.in.Accept(f)
	if err != nil {
		return err
	}
	r.giveBack(dup)
	s.next = max(s.next, f.First)
	if want := max(s.next, f.First); len(fresh) > 0 && first != want {
		return fmt.Errorf("%s was delivered %d, expected %d", s.topic, first, want)
	}
	for i, m := range fresh {
		seq := first + uint64(i)
		if want := content(s.topic, seq, len(m)); !bytes.Equal(m, want) {
			return fmt.Errorf("%s/%d is %.40q", s.topic, seq, m)
		}
		s.held[seq] = EncodedSize(len(m))
		s.order = append(s.order, seq)
		s.ever[seq]++
		s.next = seq + 1
	}
	return nil
}

// settle handles messages; those that this state does not hold are passed over.
func (r *remote) settle(s *inflow, seqs ...uint64) {
	for _, seq := range seqs {
		if size, ok := s.held[seq]; ok {
			delete(s.held, seq)
			s.finished[seq] = true
			s.in.Settle(seq, seq)
			r.giveBack(Amount{Messages: 1, Bytes: size})
		}
	}
}

func (r *remote) reject(s *inflow, seq uint64) {
	if size, ok := s.held[seq]; ok {
		delete(s.held, seq)
		s.refused[seq] = true
		f := s.in.Reject(seq, &PeerError{code: wire.Code_CODE_UNDECODABLE, Reason: "rejected"})
		r.giveBack(Amount{Messages: 1, Bytes: size})
		if s.online {
			r.send(&wire.Frame{Body: &wire.Frame_Reject{Reject: f}})
		}
	}
}

// ack queues what the senders have not been told.
func (r *remote) ack() {
	for _, topic := range r.topics { // not in random order: a seed must give the same run again
		s := r.streams[topic]
		for s.online {
			a, ok := s.in.Ack()
			if !ok {
				break
			}
			out, err := r.enc.AppendAck(nil, a)
			if err != nil {
				r.t.Fatal(err)
			}
			r.out = append(r.out, payload(r.t, r.enc, out))
		}
	}
}

// disconnect takes every stream off the connection.
func (r *remote) disconnect() {
	for _, s := range r.streams {
		if s.online {
			r.giveBack(s.in.Outstanding())
			s.in.Detach()
			s.online = false
		}
	}
	r.handles, r.line, r.out = map[uint64]*inflow{}, nil, nil
}

// restart forgets everything but what the test has to know. A durable remote stores what was settled, and knows that
// afterwards.
func (r *remote) restart(durable bool) {
	r.disconnect()
	for _, s := range r.streams {
		for _, size := range s.held {
			r.giveBack(Amount{Messages: 1, Bytes: size})
		}
		s.stored = nil
		if durable && s.in != nil {
			s.stored = s.in.Settled(nil)
		}
		s.in, s.held, s.order = nil, nil, []uint64{}
	}
}
