package dispatch

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// Group is one reader of a topic's log, shared by its members. The topic's mutex guards it.
type Group struct {
	topic    *Topic
	name     string // empty: of one subscription
	at       *link  // the cursor: message index of the node at it is next
	index    int
	returned []Delivery // given back, in order of the log; they come before the cursor
	members  []*Member
	size     atomic.Int32 // of members, for those who do not hold the mutex
	idle     []*Member    // whose last Take found nothing
	keys     map[string]*keyQueue
	gone     bool

	turn sync.Mutex // not guarded by the topic's mutex, but above it: see Member.Turn
}

// Delivery is one message given to a member, which has to Settle, Refuse or Return it.
type Delivery struct {
	node    *node
	index   int32
	fresh   bool      // data is a view of the node's memory
	data    []byte    // the message
	key     *keyQueue // that it has claimed
	Attempt int       // deliveries before this one that ended without an ack
}

// Message is the message's bytes. Nobody else has them.
func (d Delivery) Message() []byte { return d.data }

// Origin is where the message came from, and its sequence there.
func (d Delivery) Origin() (Source, uint64) { return d.node.source, d.node.first + uint64(d.index) }

// Received is when the message arrived.
func (d Delivery) Received() time.Time { return d.node.at }

// fetch gives deliveries that come out of the log memory outside it. No lock need be held.
func fetch(ds []Delivery) {
	for i := range ds {
		d := &ds[i]
		if d.borrowed() {
			d.data = bytes.Clone(d.data) // unlike with make, no memory is cleared first
			d.node.pass(1)
		}
		d.fresh = false
	}
}

// borrowed tells whether the message is in memory that others will ask for.
func (d *Delivery) borrowed() bool { return d.fresh && !d.node.single() }

// skip lets go of the log's memory without taking the message.
func (d *Delivery) skip() {
	if d.fresh {
		d.fresh, d.data = false, nil
		d.node.pass(1)
	}
}

func (d Delivery) pos() uint64 { return d.node.pos + uint64(d.index) }

// settle counts one group less; ok is true when it was the last one. t.mu is held, unless there is only one group.
func (t *Topic) settle(d Delivery, r *Refusal) (s settled, ok bool) {
	n, i := d.node, int(d.index)
	if n.left != nil {
		if r != nil {
			if n.refusal == nil {
				n.refusal = map[int]Refusal{}
			}
			n.refusal[i] = *r
		}
		if n.left[i]--; n.left[i] > 0 {
			return s, false
		}
		if earlier, refused := n.refusal[i]; refused {
			r = &earlier
		}
	}
	return settled{node: n, index: i, count: 1, bytes: t.size(len(d.data)), refusal: r}, true
}

// Member is one consumer of a group. Its methods are safe for concurrent use.
type Member struct {
	group   *Group
	notify  func()
	waiting bool // in group.idle
	left    bool
}

// Take returns the group's next message. When there is none, the member is idle until notify is called. It must be able
// to Take then: another member is not notified of the same message.
func (m *Member) Take() (Delivery, bool) {
	var one [1]Delivery
	if ds, _ := m.TakeUpTo(one[:0], 1, true); len(ds) > 0 {
		return ds[0], true
	}
	return Delivery{}, false
}

// plenty is how many messages have to wait for nobody to run dry because an ack comes late.
const plenty = 64

// TakeUpTo appends up to n of the group's next messages. When there is none, and idle is set, the member is idle until notify
// is called. busy tells that so many more wait that acks are not urgent.
func (m *Member) TakeUpTo(ds []Delivery, n int, idle bool) (out []Delivery, busy bool) {
	g, from := m.group, len(ds)
	g.topic.mu.Lock()
	for len(ds)-from < n {
		d, ok := m.pop()
		if !ok {
			break
		}
		ds = append(ds, d)
	}
	if len(ds) == from && idle && !m.waiting && !m.left && !g.gone {
		m.waiting = true
		g.idle = append(g.idle, m)
	}
	busy = !g.topic.prompt && g.behind() >= plenty
	g.topic.mu.Unlock()
	fetch(ds[from:])
	return ds, busy
}

func (m *Member) pop() (Delivery, bool) {
	if m.left || m.group.gone {
		return Delivery{}, false
	}
	return m.group.pop()
}

// Settle ends a delivery: the message was handled.
func (m *Member) Settle(d Delivery) { m.end([]Delivery{d}, nil) }

// SettleAll ends deliveries: the messages were handled.
func (m *Member) SettleAll(ds []Delivery) { m.end(ds, nil) }

// Refuse ends a delivery: the message will not be handled.
func (m *Member) Refuse(d Delivery, r Refusal) { m.end([]Delivery{d}, &r) }

func (m *Member) end(ds []Delivery, r *Refusal) {
	t := m.group.topic
	var few [4]settled
	done, keyed := few[:0], false
	for _, d := range ds {
		keyed = keyed || d.key != nil
		shared := d.node.left != nil // other groups have a say as well
		if shared {
			t.mu.Lock()
		}
		s, ok := t.settle(d, r)
		if shared {
			t.mu.Unlock()
		}
		if ok {
			done = join(done, s)
		}
	}
	t.report(done)
	if !keyed {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range ds { // only now: what the report makes safe cannot come again together with the key's next
		m.group.unclaim(d)
	}
}

// Return gives a delivery back: it is the group's next message again, in its place.
func (m *Member) Return(d Delivery) {
	g := m.group
	g.topic.mu.Lock()
	done := g.giveBack(d)
	g.topic.mu.Unlock()
	g.topic.report(done)
}

// Pass gives deliveries back for other members that wait, and gets in line behind them: notify tells when to Take again,
// at once if nobody waits any more.
func (m *Member) Pass(ds ...Delivery) {
	g := m.group
	g.topic.mu.Lock()
	g.idle = slices.DeleteFunc(g.idle, func(o *Member) bool { return o == m }) // the others come first
	alone := len(g.idle) == 0
	var done []settled
	for _, d := range ds {
		done = append(done, g.giveBack(d)...)
	}
	if m.waiting = !m.left; m.waiting {
		g.idle = append(g.idle, m)
	}
	if alone {
		g.wake(1)
	}
	g.topic.mu.Unlock()
	g.topic.report(done)
}

// Prompt tells whether acks are always urgent.
func (m *Member) Prompt() bool { return m.group.topic.prompt }

// Alone tells whether the group has no other member. When that changes, notify is called.
func (m *Member) Alone() bool { return m.group.size.Load() <= 1 }

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
		g.size.Store(int32(len(g.members)))
		if g.name == "" {
			done = t.leave(g)
		} else {
			g.wake(len(g.idle)) // it may have been notified of a message that it now leaves to them
		}
	}
	dropped, over := t.expire()
	t.mu.Unlock()
	t.report(done)
	if over {
		n := 0
		for _, s := range dropped {
			n += s.count
			t.window.Release(flow.Amount{Messages: s.count, Bytes: s.bytes})
		}
		t.onEnd(n)
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
	d := Delivery{node: n, index: int32(g.index), fresh: true, data: n.message(g.index)}
	if g.index++; g.index == n.count() {
		g.at, g.index = g.at.next, 0
	}
	return d, true
}

func (g *Group) giveBack(d Delivery) []settled {
	if g.gone {
		if s, ok := g.topic.settle(d, nil); ok {
			return []settled{s}
		}
		return nil
	}
	g.returned = insert(g.returned, d)
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

// behind is the number of messages that are the group's next ones.
func (g *Group) behind() int {
	n := len(g.returned)
	if first := g.at.node; first != nil {
		n += int(g.topic.pos-first.pos) - g.index
	}
	return n
}

// backlog is the number of messages that nobody has.
func (g *Group) backlog() int {
	n := g.behind()
	for _, q := range g.keys {
		n += len(q.waiting)
	}
	return n
}
