package dispatch

import (
	"slices"
	"sync/atomic"
)

// group is one reader of a topic's log, shared by its members: a consumer group, or a single subscription without one.
// It is guarded by Topic.mu, except the atomic.
type group struct {
	topic       *Topic
	name        string     // empty for a single subscription
	cursor      *entry     // where the next message is, unless one was returned
	index       int        // of the next message in the run at the cursor
	from        uint64     // position of its first message
	returned    []Delivery // given back, in the order of the log
	members     []*Member
	memberCount atomic.Int32 // for readers without the lock
	waiters     []*Member    // members to notify of the next message, the longest waiting first
	keys        map[string]*keyQueue
	unsettled   atomic.Int64 // messages that it has not settled
	initialized bool         // messages wait for the first to come, and the topic for them
	orphaned    bool         // its single subscription ended, and was the last of its kind
	dropped     bool         // it gives out nothing and settles what is given back
	passed      int          // messages ahead of the cursor that were withdrawn

	unclaimed []uint64 // positions that members took and whose key is not known yet, ascending
	early     []early  // claims that wait for a position of unclaimed, in the order of the log
}

// pop takes the next message out of the group, into d, which is empty: a Delivery is too large to be returned for each
// message. The caller has to report what takeSkippedLocked returns.
func (g *group) pop(d *Delivery) bool {
	for {
		if ok := g.popNext(d); !ok || !g.skips(d) {
			return ok
		}
		*d = Delivery{}
	}
}

func (g *group) popNext(d *Delivery) bool {
	if len(g.returned) > 0 {
		*d = g.returned[0]
		g.returned[0] = Delivery{} // the slice keeps its memory
		g.returned = g.returned[1:]
		return true
	}
	return g.popCursor(d)
}

// popCursor takes the next message of the log, into d, which is empty.
func (g *group) popCursor(d *Delivery) bool {
	g.skipWithdrawn()
	r := g.cursor.run
	if r == nil {
		return false
	}
	d.run, d.index = r, int32(g.index)
	if g.index++; g.index == r.count() {
		g.cursor, g.index = g.cursor.next, 0
	}
	return true
}

// wake notifies up to n waiters.
func (g *group) wake(n int) {
	for ; n > 0 && len(g.waiters) > 0; n-- {
		m := g.waiters[0]
		g.waiters = g.waiters[1:]
		m.waiting = false
		m.notify()
	}
}

// giveBack makes a delivery the group's next message again. The caller has to report what it returns: a dropped group
// settles the message instead.
func (g *group) giveBack(d Delivery) []settledRange {
	d.Redelivered = true
	if !g.dropped && revoked(d.run.source) {
		done := g.giveUp(d)
		g.claimEarly()
		return done
	}
	if g.dropped {
		if s, last := d.settle(nil, g.topic.size); last {
			return []settledRange{s}
		}
		return nil
	}
	g.returned = insertOrdered(g.returned, d)
	g.removeUnclaimed(d.pos())
	g.wake(1)
	return nil
}

// handOver reserves a delivery for the member that has waited longest. It returns false if no member waits but except.
func (g *group) handOver(d Delivery, except *Member) bool {
	i := slices.IndexFunc(g.waiters, func(m *Member) bool { return m != except })
	if i < 0 || revoked(d.run.source) {
		return false
	}
	m := g.waiters[i]
	g.removeWaiter(m)
	d.Redelivered = true
	m.handed = append(m.handed, d)
	m.notify()
	return true
}

// drop ends the group and settles for it what no member has. The caller has to report what it returns.
func (g *group) drop() []settledRange { return g.dropEach(func(Delivery) bool { return false }) }

// dropEach is drop, but for the deliveries that keep takes, which must be settled elsewhere.
func (g *group) dropEach(keep func(Delivery) bool) (done []settledRange) {
	g.dropped = true
	g.requeueKeyed()
	for _, m := range g.members {
		for _, d := range m.takeHanded() {
			g.returned = insertOrdered(g.returned, d)
		}
		m.recall()
	}
	for {
		var d Delivery
		if !g.pop(&d) {
			g.cursor = &entry{} // members may stay: they must not hold what is appended
			return append(done, g.topic.takeSkippedLocked()...)
		}
		if keep(d) {
			continue
		}
		if s, last := d.settle(nil, g.topic.size); last {
			done = appendSettled(done, s)
		}
	}
}

// add makes m a member, and notifies the others, who are not alone any more.
func (g *group) add(m *Member) {
	others := g.members
	g.members = append(g.members, m)
	g.memberCount.Store(int32(len(g.members)))
	for _, other := range others {
		other.notify()
	}
}

// stopTaking lets a member take nothing more. The caller has to report what it returns.
func (g *group) stopTaking(m *Member) []settledRange {
	m.stopped = true
	return g.passOn(m)
}

// passOn gives what was reserved for a member, or it was notified of, to the others. The caller has to report what it
// returns.
func (g *group) passOn(m *Member) (done []settledRange) {
	for _, d := range m.takeHanded() {
		done = append(done, g.giveBack(d)...)
	}
	g.wake(len(g.waiters)) // m may have been notified of a message that it leaves to them
	return done
}

// remove ends a membership. The caller has to report what it returns.
func (g *group) remove(m *Member) []settledRange {
	m.left = true
	done := g.stopTaking(m)
	g.members = slices.DeleteFunc(g.members, func(o *Member) bool { return o == m })
	g.memberCount.Store(int32(len(g.members)))
	return done
}

func (g *group) addWaiter(m *Member) {
	m.waiting = true
	g.waiters = append(g.waiters, m)
}

func (g *group) removeWaiter(m *Member) {
	m.waiting = false
	g.waiters = slices.DeleteFunc(g.waiters, func(o *Member) bool { return o == m })
}

// ready is the number of messages that a member could take.
func (g *group) ready() int {
	n := len(g.returned)
	if first := g.cursor.run; first != nil {
		n += int(g.topic.pos-first.pos) - g.index - g.passed
	}
	return n
}

// backlog is the number of messages that no member has: those that are ready, and those that wait for their key.
func (g *group) backlog() int {
	n := g.ready()
	for _, q := range g.keys {
		n += len(q.waiting)
	}
	for _, m := range g.members {
		n += len(m.handed)
	}
	return n + len(g.early)
}

// position is the position of the next message in the log that was not taken.
func (g *group) position() uint64 {
	if r := g.cursor.run; r != nil {
		return r.pos + uint64(g.index)
	}
	return g.topic.pos
}
