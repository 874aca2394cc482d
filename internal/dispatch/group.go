package dispatch

import (
	"bytes"
	"slices"
	"sync"
	"time"
)

// Group is one reader of a topic's log, shared by its members. The topic's mutex guards it.
type Group struct {
	topic    *Topic
	name     string // empty: of one subscription
	at       *link  // the cursor: message index of the node at it is next
	index    int
	returned []Delivery // given back, in order of the log; they come before the cursor
	members  []*Member
	idle     []*Member // whose last Take found nothing
	keys     map[string]*keyQueue
	gone     bool

	turn sync.Mutex // not guarded by the topic's mutex, but above it: see Member.Turn
}

// Delivery is one message given to a member, which has to Settle, Refuse or Return it.
type Delivery struct {
	node    *node
	index   int
	key     *keyQueue // that it has claimed
	Attempt int       // deliveries before this one that ended without an ack
}

// Message is the message's bytes. They are shared: do not write to them.
func (d Delivery) Message() []byte { return d.node.msgs[d.index] }

// Origin is where the message came from, and its sequence there.
func (d Delivery) Origin() (Source, uint64) { return d.node.source, d.node.first + uint64(d.index) }

// Received is when the message arrived.
func (d Delivery) Received() time.Time { return d.node.at }

// Shared tells whether another group gets the same bytes.
func (d Delivery) Shared() bool { return d.node.left != nil }

// own returns the delivery with bytes of its own: a message that waits while others pass would otherwise keep the whole
// run that it arrived in. One that other groups get as well stays where it is, as they share its count.
func (d Delivery) own() Delivery {
	if d.node.left != nil || len(d.node.msgs) == 1 {
		return d
	}
	d.node = &node{
		source: d.node.source, first: d.node.first + uint64(d.index), pos: d.pos(), at: d.node.at,
		msgs: [][]byte{bytes.Clone(d.Message())},
	}
	d.index = 0
	return d
}

func (d Delivery) pos() uint64 { return d.node.pos + uint64(d.index) }

// settle counts one group less; ok is true when it was the last one.
func (d Delivery) settle(r *Refusal) (s settled, ok bool) {
	n := d.node
	if n.left != nil {
		if r != nil {
			if n.refusal == nil {
				n.refusal = map[int]Refusal{}
			}
			n.refusal[d.index] = *r
		}
		if n.left[d.index]--; n.left[d.index] > 0 {
			return s, false
		}
		if earlier, refused := n.refusal[d.index]; refused {
			r = &earlier
		}
	}
	return settled{node: n, index: d.index, refusal: r}, true
}

// Member is one consumer of a group. Its methods are safe for concurrent use.
type Member struct {
	group   *Group
	notify  func()
	waiting bool // in group.idle
	left    bool
}

// Take returns the group's next message. When there is none, notify will be called.
func (m *Member) Take() (Delivery, bool) {
	g := m.group
	g.topic.mu.Lock()
	defer g.topic.mu.Unlock()
	if m.left || g.gone {
		return Delivery{}, false
	}
	d, ok := g.pop()
	if !ok && !m.waiting {
		m.waiting = true
		g.idle = append(g.idle, m)
	}
	return d, ok
}

// Settle ends a delivery: the message was handled.
func (m *Member) Settle(d Delivery) { m.end(d, nil) }

// Refuse ends a delivery: the message will not be handled.
func (m *Member) Refuse(d Delivery, r Refusal) { m.end(d, &r) }

func (m *Member) end(d Delivery, r *Refusal) {
	t := m.group.topic
	s, ok := settled{node: d.node, index: d.index, refusal: r}, true
	if d.node.left != nil { // other groups have a say as well
		t.mu.Lock()
		s, ok = d.settle(r)
		t.mu.Unlock()
	}
	if ok {
		t.report(s)
	}
	if d.key != nil { // only now: what the report makes safe cannot come again together with the key's next
		t.mu.Lock()
		m.group.unclaim(d)
		t.mu.Unlock()
	}
}

// Return gives a delivery back: it is the group's next message again, in its place.
func (m *Member) Return(d Delivery) {
	g := m.group
	g.topic.mu.Lock()
	done := g.giveBack(d)
	g.topic.mu.Unlock()
	g.topic.report(done...)
}

// Pass gives a delivery back for another member that waits, and gets in line behind it: notify tells when to Take again,
// at once if nobody waits any more.
func (m *Member) Pass(d Delivery) {
	g := m.group
	g.topic.mu.Lock()
	if !m.waiting && !m.left {
		m.waiting = true
		g.idle = append(g.idle, m)
	}
	done := g.giveBack(d)
	g.topic.mu.Unlock()
	g.topic.report(done...)
}

// Alone tells whether the group has no other member. When that changes, notify is called.
func (m *Member) Alone() bool {
	m.group.topic.mu.Lock()
	defer m.group.topic.mu.Unlock()
	return len(m.group.members) <= 1
}

// Crowded tells whether another member of the group waits for a message.
func (m *Member) Crowded() bool {
	m.group.topic.mu.Lock()
	defer m.group.topic.mu.Unlock()
	return len(m.group.idle) > 0
}

// Leave ends the membership. What it had taken must have been settled or returned before.
func (m *Member) Leave() {
	g := m.group
	t := g.topic
	t.mu.Lock()
	var done []settled
	if !m.left {
		m.left = true
		g.idle = slices.DeleteFunc(g.idle, func(o *Member) bool { return o == m })
		g.members = slices.DeleteFunc(g.members, func(o *Member) bool { return o == m })
		if g.name == "" {
			done = t.leave(g)
		} else {
			g.wake(len(g.idle)) // it may have been notified of a message that it now leaves to them
		}
	}
	dropped, over := t.expire()
	t.mu.Unlock()
	t.report(done...)
	if over {
		for _, d := range dropped {
			t.window.Release(Amount{1, t.size(len(d.node.msgs[d.index]))})
		}
		t.onEnd(len(dropped))
		t.window.Close()
	}
}

// pop takes the next message out of the group.
func (g *Group) pop() (Delivery, bool) {
	if len(g.returned) > 0 {
		d := g.returned[0]
		g.returned[0] = Delivery{} // the slice keeps its memory
		g.returned = g.returned[1:]
		return d, true
	}
	n := g.at.node
	if n == nil {
		return Delivery{}, false
	}
	d := Delivery{node: n, index: g.index}
	if g.index++; g.index == len(n.msgs) {
		g.at, g.index = g.at.next, 0
	}
	return d, true
}

func (g *Group) giveBack(d Delivery) []settled {
	if g.gone {
		if s, ok := d.settle(nil); ok {
			return []settled{s}
		}
		return nil
	}
	g.returned = insert(g.returned, d.own())
	g.wake(1)
	return nil
}

// insert puts a delivery into its place in the log's order.
func insert(ds []Delivery, d Delivery) []Delivery {
	i, _ := slices.BinarySearchFunc(ds, d, func(a, b Delivery) int {
		if a.pos() < b.pos() {
			return -1
		}
		return 1
	})
	return slices.Insert(ds, i, d)
}

// wake notifies up to n idle members.
func (g *Group) wake(n int) {
	for ; n > 0 && len(g.idle) > 0; n-- {
		m := g.idle[0]
		g.idle = g.idle[1:]
		m.waiting = false
		m.notify()
	}
}

func (g *Group) backlog() int {
	n := len(g.returned)
	for _, q := range g.keys {
		n += len(q.waiting)
	}
	for at, index := g.at, g.index; at.node != nil; at, index = at.next, 0 {
		n += len(at.node.msgs) - index
	}
	return n
}
