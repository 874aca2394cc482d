package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// process is a publisher's process: its senders, the Publish calls that are under way, and perhaps an outbox.
type process struct {
	w        *world
	n        int
	identity session.Identity
	streams  uint64
	budget   *flow.Budget
	senders  []*sender
	heads    map[*session.Outbound]*head
	order    []*head // of heads: what a violation says must not hang on the order of a map
	calls    []*call
	waits    []*wait
	box      *outbox // nil: none, or it has gone to a successor
	old      bool    // a successor has its outbox
}

// call is a Publish that has not enqueued all of its messages.
type call struct {
	sender *sender
	out    *session.Outbound
	batch  *session.Batch
	msgs   []*message
	at     int
	level  session.Level
	turn   *session.Turn
}

// wait is a Publish that waits for its messages.
type wait struct {
	*session.Waiter
	head *head
	late bool // it has a deadline
}

func (w *world) newProcess() *process {
	w.lastProc++
	p := &process{
		w: w, n: w.lastProc, heads: map[*session.Outbound]*head{},
		identity: session.Identity{Publisher: w.dice.bytes16(), Secret: w.dice.bytes16(), Epoch: 1},
		budget:   flow.NewBudget(w.shape.keepMemory),
	}
	for _, r := range w.receivers {
		p.senders = append(p.senders, w.newSender(p, r))
	}
	w.procs = append(w.procs, p)
	w.note("process starts", p.n, 0, 0)
	return p
}

// headOf finds what the process knows of a stream.
func (p *process) headOf(to *receiver, id StreamID) *head {
	f := p.w.flows[flowKey{to.n, id}]
	for _, h := range p.order {
		if f != nil && h.flow == f {
			return h
		}
	}
	return nil
}

// head returns what the process knows of the stream to a topic, and begins that.
func (p *process) head(l *sender, topic string) *head {
	before := p.streams
	o := l.client.Stream(topic)
	if h := p.heads[o]; h != nil && p.streams == before {
		return h
	}
	f := p.w.newFlow(l.to, StreamID{p.identity.Publisher, p.streams, topic}, p.identity.Secret)
	h := &head{flow: f, proc: p, out: o, next: 1}
	p.keep(h)
	return h
}

func (p *process) keep(h *head) {
	p.heads[h.out] = h
	p.order = append(p.order, h)
}

func (p *process) forget(h *head) {
	delete(p.heads, h.out)
	p.order = slices.DeleteFunc(p.order, func(o *head) bool { return o == h })
}

// publish begins a Publish of some messages.
func (p *process) publish(l *sender, topic string, level session.Level) {
	w := p.w
	c := &call{sender: l, out: p.head(l, topic).out, batch: &session.Batch{}, level: level, turn: session.NewTurn()}
	for range 1 + w.dice.n(w.shape.batch) {
		m := w.newMessage()
		c.msgs = append(c.msgs, m)
		_, ok, err := c.batch.Append(1<<20, func(dst []byte) ([]byte, error) { return m.body(dst), nil })
		if !ok || err != nil {
			w.fail(ruleContent, "a batch refuses a message of %d bytes: %v", m.size, err)
		}
	}
	w.note("publish", p.n, l.to.n, len(c.msgs))
	if p.advance(c) {
		p.calls = append(p.calls, c)
	}
}

// advance enqueues what there is room for, and tells whether something is left.
func (p *process) advance(c *call) (more bool) {
	if o := c.sender.client.Current(c.out); o != c.out {
		c.out = p.head(c.sender, c.out.Topic).out
	}
	w, h := p.w, p.heads[c.out]
	n, first, err := c.sender.client.Enqueue(c.out, c.batch, c.at, c.turn)
	if err != nil || h == nil {
		w.fail(ruleProtocol, "process %d: enqueue: %v", p.n, err)
		return false
	}
	if n > 0 && first != h.next {
		w.fail(ruleContent, "flow %d: enqueued at %d, expected %d", h.flow.n, first, h.next)
		return false
	}
	for _, m := range c.msgs[c.at : c.at+n] {
		h.flow.add(m)
	}
	c.at += n
	h.next += uint64(n)
	if o := c.out; o.Pending() > w.shape.keepMessages {
		w.fail(ruleCredit, "flow %d keeps %d messages in a window of %d", h.flow.n, o.Pending(), w.shape.keepMessages)
	}
	if n > 0 && c.level != 0 {
		p.await(c, h, first, first+uint64(n)-1)
	}
	if c.at == len(c.msgs) {
		return false
	}
	return true
}

func (p *process) await(c *call, h *head, first, last uint64) {
	w := &wait{head: h, Waiter: &session.Waiter{Level: c.level, First: first, Last: last, Done: make(chan struct{}, 1)}}
	if p.w.dice.chance(150) {
		w.late = true
		w.Deadline = c.sender.now().Add(time.Duration(p.w.dice.n(30_000)) * time.Millisecond)
	}
	c.sender.client.Await(c.out, w.Waiter)
	p.waits = append(p.waits, w)
}

// work lets the calls go on for which there is room.
func (p *process) work() {
	p.calls = slices.DeleteFunc(p.calls, func(c *call) bool {
		select {
		case <-c.turn.Ready:
			return !p.advance(c)
		default:
			return false
		}
	})
	p.look()
}

// look checks what is true whenever something was heard, and the waits that are over.
func (p *process) look() {
	w := p.w
	for _, h := range p.order {
		if o := h.out; h.flow.box == nil && !h.released && o.Pending() != int(h.next)-1-h.settled {
			w.fail(ruleAcked, "flow %d: its sender keeps %d messages, of %d enqueued %d are settled",
				h.flow.n, o.Pending(), h.next-1, h.settled)
			return
		}
	}
	p.waits = slices.DeleteFunc(p.waits, func(x *wait) bool {
		select {
		case <-x.Done:
			p.verdict(x)
			return true
		default:
			return false
		}
	})
}

// verdict tells whether a Publish was right to return.
func (p *process) verdict(x *wait) {
	w, f := p.w, x.head.flow
	if x.late && errors.Is(x.Err, errLate) {
		w.seen["publishes timed out"]++
		return
	}
	rejected := false
	for seq := x.First; seq <= x.Last; seq++ {
		m := f.message(seq)
		switch {
		case x.Level == session.Received && !m.reached && !m.rejected:
			w.fail(rulePublish, "flow %d: Publish says that %d was received, and no receiver has it", f.n, seq)
		case x.Level == session.Handled && !m.safe():
			w.fail(rulePublish, "flow %d: Publish says that %d was handled, and not all groups did", f.n, seq)
		}
		rejected = rejected || m.reports > 0
	}
	if x.Err != nil && !rejected {
		w.fail(rulePublish, "flow %d: Publish of %d to %d failed: %v", f.n, x.First, x.Last, x.Err)
	}
	w.seen["publishes confirmed"]++
}

// die ends a process at once. What it alone had is lost.
func (p *process) die() {
	w := p.w
	w.note("process dies", p.n, 0, 0)
	w.seen["processes killed"]++
	for _, l := range p.senders {
		if c := l.conn; c != nil {
			c.sender, l.conn = nil, nil
			at := c.up.arrived + w.dice.n(c.up.written-c.up.arrived+1)
			c.up.cut(at)
		}
	}
	for _, h := range p.order {
		if h.flow.box == nil {
			h.flow.dead = true
		}
	}
	for _, c := range p.calls {
		w.unpublished += len(c.msgs) - c.at
	}
	w.procs = slices.DeleteFunc(w.procs, func(o *process) bool { return o == p })
}
