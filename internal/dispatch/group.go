package dispatch

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
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

// passOn gives what was reserved for a member, or it was notified of, to the others. The caller has to report what it returns.
func (g *group) passOn(m *Member) (done []settledRange) {
	g.removeWaiter(m)
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

// Member is one consumer of a group. Its methods are safe for concurrent use. Topic.mu guards all fields but group and notify.
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
// other member is notified of the same message. deferAcks tells that so many messages are left that acks are not urgent.
func (m *Member) Take() (d Delivery, deferAcks, ok bool) {
	deferAcks, ok = m.TakeInto(&d, false)
	return d, deferAcks, ok
}

// TakeToClaim is Take for a member that orders messages by key. It has to Claim the delivery's key then, or to Forgo it,
// or to Return the delivery: no later message of the group is claimed before.
func (m *Member) TakeToClaim() (d Delivery, deferAcks, ok bool) {
	deferAcks, ok = m.TakeInto(&d, true)
	return d, deferAcks, ok
}

// TakeInto is Take, or TakeToClaim, into d, which is empty: to return a Delivery costs more than to take it.
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

// StopTaking makes Take find nothing from now on. What was reserved for the member, or it was notified of, is the others'.
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

// Delivery is one message given to a member, which has to Settle, Refuse, Return or Yield it. Until then the message is
// there as it arrived, whatever a handler does with the bytes that Message gave it.
type Delivery struct {
	run   *run
	index int32
	// Redelivered tells that the message was given to a member before: to one that gave it back, or to a group that ended.
	Redelivered bool      // stands here as there is room
	data        []byte    // the message, if it was detached from the run
	key         *keyQueue // of the key that the delivery holds, or nil
	Attempt     int       // earlier deliveries of the message that ended without an ack
}

// Message returns the message in memory that is the caller's: a handler may write to it.
func (d *Delivery) Message() []byte {
	return bytes.Clone(d.arrived()) // unlike with make, no memory is cleared first
}

// arrived is the message as it arrived.
func (d *Delivery) arrived() []byte {
	if d.data != nil {
		return d.data
	}
	return d.run.message(int(d.index))
}

// length is that of the message in bytes.
func (d *Delivery) length() int {
	if d.data != nil {
		return len(d.data)
	}
	return d.run.length(int(d.index))
}

// Size is the length of the message in bytes.
func (d *Delivery) Size() int { return d.length() }

// Detach moves the message out of memory that it shares with others. It is for a delivery that may take long: one that
// is stuck must not keep its whole run. It needs no lock.
func (d *Delivery) Detach() {
	if d.data == nil && d.run.count() > 1 {
		d.data = bytes.Clone(d.arrived())
		d.run.release()
	}
}

// Origin is where the message came from, and its sequence there. It may be called while the delivery is detached.
func (d *Delivery) Origin() (Source, uint64) { return d.run.source, d.run.first + uint64(d.index) }

// Received is when the message arrived.
func (d *Delivery) Received() time.Time { return d.run.at }

// Again reports whether the message is given out once more, as another subscription without a group had not settled it:
// see Topic. It may have been settled.
func (d Delivery) Again() bool { return d.run.repeats() }

// pos is the message's position in the log.
func (d *Delivery) pos() uint64 { return d.run.pos + uint64(d.index) }

// settle ends the delivery for its group. last reports whether every group has settled the message now. The caller must
// hold Topic.mu if the run is shared.
func (d *Delivery) settle(refusal *Refusal, size func(n int) int) (s settledRange, last bool) {
	n := size(d.length())
	refusal, last = d.run.settle(int(d.index), refusal)
	s = settledRange{run: d.run, index: int(d.index), count: 1, bytes: n, refusal: refusal}
	if last && d.run.isReturned(int(d.index)) {
		s.returned, s.handled, s.refusal = true, d.run.isHandled(int(d.index)), nil
	}
	if d.data == nil {
		d.run.release()
	}
	return s, last
}

// Settle ends a delivery: the message was handled.
func (m *Member) Settle(d Delivery) { m.settle([]Delivery{d}, nil) }

// SettleAll ends deliveries whose messages were handled.
func (m *Member) SettleAll(ds []Delivery) { m.settle(ds, nil) }

// Refuse ends a delivery: the message will not be handled.
func (m *Member) Refuse(d Delivery, refusal Refusal) { m.settle([]Delivery{d}, &refusal) }

// settle ends deliveries, and lets the keys that they hold go on. That comes after the report: what the report makes
// durable cannot come again beside the key's next message.
func (m *Member) settle(ds []Delivery, refusal *Refusal) {
	t := m.group.topic
	m.group.unsettled.Add(int64(-len(ds)))
	var few [4]settledRange
	done, keyed := few[:0], false
	var part []settledRange
	for i := range ds {
		d := &ds[i]
		keyed = keyed || d.key != nil
		s, last := t.settle(d, refusal)
		switch {
		case last:
			done = appendSettled(done, s)
		case t.ackImmediately && m.group.name != "" && refusal == nil && !d.run.repeats():
			part = appendSettled(part, s)
		}
	}
	t.report(done)
	m.group.reportPart(part)
	if keyed {
		m.releaseKeys(ds)
	}
}

// settle ends a delivery for its group, under the lock if other groups have to settle the message too.
func (t *Topic) settle(d *Delivery, refusal *Refusal) (s settledRange, last bool) {
	if d.run.shared() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if refusal == nil {
			d.run.left[d.index] |= handled
		}
	}
	return d.settle(refusal, t.size)
}

// settledRange is consecutive messages of a run that every group has settled; a refused message is a range of its own.
type settledRange struct {
	run          *run
	index, count int
	bytes        int // as the window counts them
	refusal      *Refusal
	returned     bool // some group had not settled them, but given them up
	handled      bool // and the handler of another had handled them
}

// appendSettled appends a range, or lengthens the last one by it.
func appendSettled(done []settledRange, s settledRange) []settledRange {
	if n := len(done); n > 0 {
		last := &done[n-1]
		if last.run == s.run && last.index+last.count == s.index && last.refusal == nil && s.refusal == nil && last.returned == s.returned && last.handled == s.handled {
			last.count += s.count
			last.bytes += s.bytes
			return done
		}
	}
	return append(done, s)
}

// report passes settled messages to their sources, and gives the window their room back. The caller must not hold t.mu.
func (t *Topic) report(done []settledRange) {
	for _, s := range done {
		first := s.run.first + uint64(s.index)
		if r, ok := s.run.source.(RevocableSource); s.returned && ok {
			r.Returned(first, first+uint64(s.count)-1, s.handled)
		} else if s.refusal != nil {
			s.run.source.Refused(first, *s.refusal)
		} else {
			s.run.source.Settled(first, first+uint64(s.count)-1)
		}
		t.window.Release(flow.Amount{Messages: s.count, Bytes: s.bytes})
	}
}
