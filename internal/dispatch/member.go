package dispatch

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Member is one consumer of a group. Its methods are safe for concurrent use. Topic.mu guards all fields but group and
// notify.
type Member struct {
	group    *group
	notify   func()
	waiting  bool       // in group.waiters
	handed   []Delivery // by another member: no other takes them
	draining bool       // it takes only what TakeUnkept returns
	stopped  bool       // it takes nothing more
	left     bool
	ending   func() bool // see WhenEnding; nil: never

	first  atomic.Int64      // see NoteFirst; in ns since 1970
	keptMu sync.Mutex        // a leaf; guards kept
	kept   map[time.Time]int // deliveries that take longer, by the time at which their messages were received

	recalled atomic.Bool // see Recalled
}

// deferAcksFrom is the number of ready messages from which a late ack leaves no member without messages, even if
// publishers wait for that ack.
const deferAcksFrom = 64

// Take returns the group's next message. When there is none, the member waits to be notified, and has to Take then: no
// other member is notified of the same message. deferAcks tells that so many messages are left that acks are not
// urgent.
func (m *Member) Take() (d Delivery, deferAcks, ok bool) {
	deferAcks, ok = m.TakeInto(&d, false)
	return d, deferAcks, ok
}

// TakeInto is Take into d, which is empty: to return a Delivery costs more than to take it. With toClaim the member orders
// messages by key: it has to Claim the delivery's key then, or to Forgo it, or to Return the delivery: no later message
// of the group is claimed before.
func (m *Member) TakeInto(d *Delivery, toClaim bool) (deferAcks, ok bool) {
	deferAcks, ok, after := m.pop(d, toClaim)
	if after.hungry {
		m.group.topic.window.Serve()
	}
	m.group.topic.report(after.skipped)
	return deferAcks, ok
}

// afterPop is what the caller of pop has to do without the topic's lock.
type afterPop struct {
	skipped []settledRange // to report
	hungry  bool           // to serve the window, as the topic's consumers have got hungry
}

// pop takes a message out of the group, into d, which is empty.
func (m *Member) pop(d *Delivery, toClaim bool) (deferAcks, ok bool, after afterPop) {
	g := m.group
	g.topic.mu.Lock()
	defer g.topic.mu.Unlock()
	if m.stopped || m.draining || g.dropped {
		return false, false, after
	}
	if len(m.handed) > 0 {
		*d, ok = m.handed[0], true
		m.handed = m.handed[1:]
	} else {
		ok = g.pop(d)
	}
	if !ok {
		after.hungry = g.topic.window.SetHungry(true)
	}
	switch {
	case !ok && !m.waiting:
		g.addWaiter(m)
	case ok && toClaim && d.key == nil:
		g.addUnclaimed(d.pos())
	}
	after.skipped = g.topic.takeSkippedLocked()
	return !g.topic.ackImmediately && g.ready() >= deferAcksFrom, ok, after
}

// Return gives deliveries back: they are the group's next messages again, in their place in the log.
func (m *Member) Return(ds ...Delivery) {
	g := m.group
	var done []settledRange
	g.topic.mu.Lock()
	for _, d := range ds {
		done = append(done, g.giveBack(d)...)
	}
	g.topic.mu.Unlock()
	g.topic.report(done)
}

// HandOver gives a delivery to the member of the group that has waited longest for a message, and to no other. It
// returns false, and the delivery stays the member's own, if no other member waits.
func (m *Member) HandOver(d Delivery) bool {
	g := m.group
	g.topic.mu.Lock()
	defer g.topic.mu.Unlock()
	return !g.dropped && g.handOver(d, m)
}

// takeHanded returns what was handed to the member and not taken.
func (m *Member) takeHanded() (ds []Delivery) {
	ds, m.handed = m.handed, nil
	return ds
}

// Yield gives deliveries back for members that wait, and makes this member wait behind them. It is notified when to
// Take again, at once if no other member waits any more.
func (m *Member) Yield(ds ...Delivery) {
	g := m.group
	g.topic.mu.Lock()
	g.removeWaiter(m)
	first := len(g.waiters) == 0
	var done []settledRange
	for _, d := range ds {
		done = append(done, g.giveBack(d)...)
	}
	if !m.stopped && !m.draining {
		g.addWaiter(m)
	}
	if first {
		g.wake(1)
	}
	g.topic.mu.Unlock()
	g.topic.report(done)
}

// StopTaking makes Take find nothing from now on. What was reserved for the member, or it was notified of, is the
// others'.
func (m *Member) StopTaking() {
	g := m.group
	g.topic.mu.Lock()
	done := g.stopTaking(m)
	g.topic.mu.Unlock()
	g.topic.report(done)
}

// WhenEnding sets what reports whether the member's consumer was asked to end, which the member need not know yet. It
// must not block, and is called with the topic's lock held.
func (m *Member) WhenEnding(ending func() bool) {
	m.group.topic.mu.Lock()
	defer m.group.topic.mu.Unlock()
	m.ending = ending
}

// Topic is the topic of the member's group.
func (m *Member) Topic() *Topic { return m.group.topic }

// AcksImmediately reports whether acks are urgent at all times.
func (m *Member) AcksImmediately() bool { return m.group.topic.ackImmediately }

// Exclusive reports whether the group has no other member. The member is notified when that ends.
func (m *Member) Exclusive() bool { return m.group.memberCount.Load() <= 1 }

// HasWaiters reports whether another member of the group waits for a message.
func (m *Member) HasWaiters() bool {
	m.group.topic.mu.Lock()
	defer m.group.topic.mu.Unlock()
	return slices.ContainsFunc(m.group.waiters, func(other *Member) bool { return other != m })
}

// Leave ends the membership. What the member has taken must be settled or given back before. A group without a name
// ends with it: see Topic.
func (m *Member) Leave() {
	t := m.group.topic
	t.mu.Lock()
	first := !m.left
	done := t.leaveLocked(m)
	handled, dropped, ended := t.expireLocked()
	done = append(done, handled...)
	t.mu.Unlock()
	if first {
		t.window.Consumers(-1)
	}
	t.report(done)
	if ended {
		t.end(dropped)
	} else {
		t.mayBeUnused()
	}
}
