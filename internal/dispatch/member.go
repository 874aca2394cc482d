package dispatch

import "slices"

// Member is one consumer of a group. Its methods are safe for concurrent use. waiting, handed, stopped and left are
// guarded by Topic.mu.
type Member struct {
	group   *group
	notify  func()
	waiting bool       // in group.waiters
	handed  []Delivery // by another member: no other takes them
	stopped bool       // it takes nothing more
	left    bool
}

// deferAcksFrom is the number of ready messages from which a late ack leaves no member without messages, even if
// publishers wait for that ack.
const deferAcksFrom = 64

// Take returns the group's next message. When there is none, the member waits to be notified, and has to Take then: no
// other member is notified of the same message. deferAcks tells that so many messages are left that acks are not urgent.
func (m *Member) Take() (d Delivery, deferAcks, ok bool) {
	return m.take(false)
}

// TakeToClaim is Take for a member that orders messages by key. It has to Claim the delivery's key then, or to Forgo it,
// or to Return the delivery: no later message of the group is claimed before.
func (m *Member) TakeToClaim() (d Delivery, deferAcks, ok bool) {
	return m.take(true)
}

func (m *Member) take(toClaim bool) (d Delivery, deferAcks, ok bool) {
	g := m.group
	g.topic.mu.Lock()
	defer g.topic.mu.Unlock()
	if m.stopped || g.dropped {
		return d, false, false
	}
	if len(m.handed) > 0 {
		d, ok = m.handed[0], true
		m.handed = m.handed[1:]
	} else {
		d, ok = g.pop()
	}
	switch {
	case !ok && !m.waiting:
		g.addWaiter(m)
	case ok && toClaim && d.key == nil:
		g.addUnclaimed(d.pos())
	}
	return d, !g.topic.ackImmediately && g.ready() >= deferAcksFrom, ok
}

// Return gives a delivery back: it is the group's next message again, in its place in the log.
func (m *Member) Return(d Delivery) {
	g := m.group
	g.topic.mu.Lock()
	done := g.giveBack(d)
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
	if !m.stopped {
		g.addWaiter(m)
	}
	if first {
		g.wake(1)
	}
	g.topic.mu.Unlock()
	g.topic.report(done)
}

// StopTaking makes Take find nothing from now on. What was reserved for the member, or it was notified of, is the others'.
func (m *Member) StopTaking() {
	g := m.group
	g.topic.mu.Lock()
	done := g.stopTaking(m)
	g.topic.mu.Unlock()
	g.topic.report(done)
}

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
	done := t.leaveLocked(m)
	handled, dropped, ended := t.expireLocked()
	done = append(done, handled...)
	t.mu.Unlock()
	t.report(done)
	if ended {
		t.end(dropped)
	} else {
		t.mayBeUnused()
	}
}
