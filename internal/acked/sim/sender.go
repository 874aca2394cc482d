package sim

import (
	"errors"
	"time"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// errLate is what waiters get whose time is over.
var errLate = errors.New("sim: too late")

// sender is a process's sending side to one receiver: what package sender does around a session.Client, without
// sockets.
type sender struct {
	w      *world
	proc   *process
	to     *receiver
	client *session.Client
	conn   *conn // nil: there is none
	skew   time.Duration
	ticked time.Time
	retry  time.Time
	relays []*relay
	segs   []session.Segment
}

func (w *world) newSender(p *process, to *receiver) *sender {
	s := &w.shape
	return &sender{
		w: w, proc: p, to: to,
		client: session.NewClient(session.ClientConfig{
			Identity: p.identity, NextStream: func() uint64 { p.streams++; return p.streams },
			Window:   session.Window{Messages: s.keepMessages, Bytes: s.keepBytes, Budget: p.budget},
			MaxFrame: session.MaxFrame(1 << 20), PingAfter: 10 * time.Second, DeadAfter: 30 * time.Second,
			IdleCredit: 250 * time.Millisecond, ForgetAfter: s.forgetAfter, Agent: "sim",
		}),
		ticked: w.now,
	}
}

func (l *sender) now() time.Time { return l.w.now.Add(l.skew) }

// dial connects if there is something to deliver and the receiver is up.
func (l *sender) dial() {
	w := l.w
	if l.conn != nil || w.now.Before(l.retry) || l.client.Pending() == 0 {
		return
	}
	l.retry = w.now.Add(time.Duration(w.dice.n(500)) * time.Millisecond)
	if l.to.life == nil || l.to.life.leaves {
		return
	}
	c := w.connect(l.to.life, l)
	l.conn = c
	c.reader = framing.NewReader(&c.down, w.enc.Codec)
	l.client.Connect(w.enc, l.now())
}

// connect makes a connection to a life.
func (w *world) connect(to *life, l *sender) *conn {
	w.lastConn++
	c := &conn{
		w: w, id: w.lastConn, sender: l, from: l, life: to, heard: w.now,
		opens: map[uint64]*outgoing{}, ins: map[uint64]*inflow{}, past: map[uint64]bool{}, fates: map[uint64]fate{},
	}
	c.port = to.node.Accept(c)
	w.conns = append(w.conns, c)
	w.note("connect", c.id, to.recv.n, to.n)
	w.seen["connections"]++
	return c
}

// flush writes what the client has to send, up to about limit bytes.
func (l *sender) flush(limit int) {
	w := l.w
	control, segments, _ := l.client.Output(l.segs[:0], limit)
	l.refusals()
	l.takeEvents()
	out := control
	for _, s := range segments {
		framed, err := w.enc.AppendPublish(out, s)
		if err != nil {
			w.fail(ruleProtocol, "conn: %v", err)
			return
		}
		out = framed
	}
	l.segs = segments
	switch {
	case len(out) == 0:
	case l.conn == nil:
		w.fail(ruleProtocol, "a client without a connection writes")
	case l.conn.up.closed:
		l.hangUp()
	default:
		l.conn.push(&l.conn.up, out, l.conn.wrote)
		w.note("flush", l.conn.id, len(out), len(segments))
	}
}

// take handles what has arrived, until there is no more.
func (l *sender) take() error {
	for {
		payload, err := l.conn.reader.Next()
		if err != nil {
			return err
		}
		if payload, err = l.w.enc.Verify(payload); err != nil {
			return err
		}
		if err := l.client.Receive(payload, l.now()); err != nil {
			return err
		}
	}
}

// heard follows what the client has taken.
func (l *sender) heard(frame any) {
	w, c := l.w, l.conn
	switch f := frame.(type) {
	case *wire.Opened:
		if o := c.opens[f.Handle]; o != nil && f.Code == 0 {
			o.open, o.next = true, f.Next
			l.settledPairs(o, f.Settled)
		}
	case *session.AckFrame:
		o := c.opens[f.Handle]
		if f.Messages != 0 {
			o.limit = amount{f.Messages, f.Bytes}
		}
		l.settledPairs(o, f.Settled)
	case *wire.Reject:
		if o := c.opens[f.Handle]; f.Sequence != 0 && !o.head.known.Has(f.Sequence) {
			o.head.flow.message(f.Sequence).reports++
			w.tell(o.head, f.Sequence, f.Sequence, true)
		}
	}
	l.refusals()
	l.takeEvents()
	l.proc.look()
}

func (l *sender) settledPairs(o *outgoing, pairs []uint64) {
	for i := 0; i+1 < len(pairs); i += 2 {
		l.w.tell(o.head, pairs[i], pairs[i+1], false)
	}
}

// refusals looks at messages that the client gave up: those too large for the peer never travel.
func (l *sender) refusals() {
	for _, r := range l.client.Refused() {
		o := l.client.Find(r.Topic)
		h := l.proc.heads[o]
		m := h.flow.message(r.Sequence)
		if !m.is(r.Message) {
			l.w.fail(ruleContent, "flow %d: the refusal of %d came with another message", h.flow.n, r.Sequence)
		}
		if !h.known.Has(r.Sequence) {
			l.refused(h, r.Sequence)
		}
	}
}

// refused follows a message that its own side gave up.
func (l *sender) refused(h *head, seq uint64) {
	m := h.flow.message(seq)
	m.rejected = true
	m.reports++
	l.w.seen["refused unsent"]++
	l.w.tell(h, seq, seq, true)
}

// tick is the sender's timer.
func (l *sender) tick() {
	l.ticked = l.w.now
	if err := l.client.Tick(l.now(), func(*session.Outbound) error { return errLate }); err != nil && l.conn != nil {
		l.w.seen["peers given up"]++
		l.hangUp()
	}
}

// ended looks at why the sender's side of a connection ends.
func (l *sender) ended(err error) {
	var broken *session.ProtocolError
	var refused *session.PeerError
	switch {
	case errors.As(err, &broken):
		l.w.fail(ruleProtocol, "conn %d: %v", l.conn.id, broken)
	case errors.As(err, &refused):
		if !l.conn.claimed {
			l.w.fail(ruleProtocol, "conn %d: %v", l.conn.id, refused)
		}
	}
	l.hangUp()
}

// hangUp gives the connection up. What is on its way to the node may still arrive there.
func (l *sender) hangUp() {
	c := l.conn
	l.conn, c.sender = nil, nil
	l.client.Disconnect()
	c.up.closed = true
	l.w.note("hang up", c.id, 0, 0)
}
