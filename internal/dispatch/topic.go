// Package dispatch holds received messages in memory until their consumers have settled them: a log for each topic,
// consumer groups that read it, and the window that bounds it. It has no goroutine, and the time matters only for what
// subscriptions without a group left: see remainder.
//
// A message comes in with Topic.Append, waits in a run of the log, and goes out with Member.Take. It comes back with
// Member.Settle or Refuse, which report it to its Source, or with Return and Yield, which give it to the group again.
//
// Locks: Topic.mu guards the topic's log, its groups and their members. Sources and windows are called without it.
package dispatch

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// Refusal says why a message will not be handled.
type Refusal struct {
	Undecodable bool
	TooLarge    bool // the Unmarshaler found it over a limit; it is Undecodable too
	Reason      string

	// Unheard is called by the Source if no sender hears of the refusal; may be nil. It does not block. Bytes is what
	// it keeps.
	Unheard func()
	Bytes   int
}

// Source is where messages come from. Each message is reported to it once, when every group has settled it: refused if
// one of them refused it. The methods are called from any goroutine, with no lock of this package held.
type Source interface {
	// Settled reports consecutive messages.
	Settled(first, last uint64)
	Refused(seq uint64, r Refusal)

	// Kept reports whether a connected sender keeps the unsettled messages. It must not block, and is called with locks
	// held.
	Kept() bool
}

// Topic is the log of one topic and its groups. Its methods are safe for concurrent use.
//
// A subscription without a group is a group of its own while it lives. When one ends beside a named group, or beside
// another of its kind that does not end as well, what it had not settled counts as settled by it. When the last one
// ends and there is no named group, its group stays, and becomes that of the first to come, with or without a name. It
// has what the ended ones had not settled, also those that ended beside another within remainderFor; what they had is
// given once more to each subscription without a group that comes within remainderFor after the first.
type Topic struct {
	name           string
	window         *flow.Window
	size           func(n int) int // of a message of n bytes, as the window counts it
	ackImmediately bool

	mu        sync.Mutex // guards what follows, the groups and members, and what their docs say
	tail      *entry
	pos       uint64          // of the next message that is appended
	groups    []*group        // named ones, and those of single subscriptions
	vacant    *group          // one of groups: without a name and a member, kept for the first to come
	beside    remainder       // of single subscriptions that ended beside another
	union     remainder       // of single subscriptions of which none was left
	members   int             // of all groups, also of those that were dropped
	declared  map[string]bool // named groups that do not exist yet
	lasting   bool            // groups were declared: the topic remembers which of them were dropped
	held      bool            // the window stays closed
	ephemeral bool            // the topic ends with its last member
	onEnd     func(dropped int)
	ended     bool           // no group joins any more
	skipped   []settledRange // by groups that had settled them in an earlier life; to be reported
	onUnused  func()

	onBehind   func(Behind)
	saidBehind atomic.Int64 // when a group was reported to onBehind last, in ns since 1970
	saidKey    time.Time    // when a key was
}

// entry is a place in a topic's log. Only the groups' cursors hold entries: what all of them have passed is garbage,
// even if a delivery still holds a run that came before it.
type entry struct {
	run  *run // nil at the end of the log
	next *entry
}

// NewTopic returns an empty topic whose window opens with the first group, or, if groups are declared, when all of
// these exist. size tells what a message of n bytes takes of the window.
func NewTopic(name string, window *flow.Window, size func(n int) int, declared ...string) *Topic {
	t := &Topic{
		name: name, window: window, size: size, tail: &entry{}, declared: map[string]bool{}, lasting: len(declared) > 0,
	}
	for _, g := range declared {
		t.declared[g] = true
	}
	return t
}

// AckImmediately makes acks urgent at all times: what was acked and is not reported would come again after a crash. It
// is called before the first Join.
func (t *Topic) AckImmediately() { t.ackImmediately = true }

// OnUnused sets what is called, with no lock held, when Retire may succeed. It is called before the first Join.
func (t *Topic) OnUnused(f func()) { t.onUnused = f }

// Name is the topic's name on the wire.
func (t *Topic) Name() string { return t.name }

// Window bounds the topic.
func (t *Topic) Window() *flow.Window { return t.window }

// Append adds consecutive messages of a source, received at at, whose room was reserved in the window. It copies them;
// of a single one it keeps the memory that it is in instead, if that is given.
func (t *Topic) Append(source Source, first uint64, msgs [][]byte, at time.Time, memory []byte) {
	t.add(source, first, msgs, at, memory, false)
}

// AppendAgain is Append for messages that another receiver may have had.
func (t *Topic) AppendAgain(source Source, first uint64, msgs [][]byte, at time.Time, memory []byte) {
	t.add(source, first, msgs, at, memory, true)
}

func (t *Topic) add(source Source, first uint64, msgs [][]byte, at time.Time, memory []byte, elsewhere bool) {
	if len(msgs) == 0 {
		return
	}
	r := newRun(source, first, msgs, at, memory)
	r.elsewhere = elsewhere
	if t.ackImmediately {
		r.known = r.remembering()
	}
	if !t.append(r) {
		t.releaseRoom(msgs)
	}
}

// append puts a run at the end of the log. It returns false if the topic has ended.
func (t *Topic) append(r *run) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return false
	}
	if len(t.groups) == 0 { // all were dropped after the window had given credit: it is for the first to come
		t.vacant = t.newGroupLocked("")
	}
	r.setGroups(len(t.groups))
	r.pos = t.pos
	t.pos += uint64(r.count())
	t.tail.run, t.tail.next = r, &entry{}
	t.tail = t.tail.next
	t.window.SetHungry(false)
	for _, g := range t.groups {
		g.unsettled.Add(int64(r.count()))
		g.wake(r.count())
	}
	return true
}

// Initialize makes a group exist: it gets every message from now on. With an empty name, messages wait for the first to
// come, unless there is a group. It returns false if the topic has ended.
func (t *Topic) Initialize(group string) bool {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return false
	}
	switch {
	case group != "":
		t.groupLocked(group)
	case t.vacant != nil:
		t.vacant.initialized = true
	case len(t.groups) == 0:
		t.vacant = t.newGroupLocked("")
		t.vacant.initialized = true
	}
	complete := t.completeLocked()
	t.mu.Unlock()
	if complete {
		t.window.Open()
	}
	return true
}

// Join adds a member to a group; with an empty name, to a group of its own. It returns nil if the topic has ended. notify
// is called when the member is not alone any more, and when a message may be there after a Take that found none. It is
// called with the topic's lock held: it must neither block nor call the topic or a member.
func (t *Topic) Join(group string, notify func()) *Member {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return nil
	}
	m := &Member{group: t.joinedGroupLocked(group), notify: notify}
	m.group.add(m)
	t.members++
	complete := t.completeLocked()
	t.mu.Unlock()
	t.window.Consumers(1)
	if complete {
		t.window.Open()
	}
	return m
}

// Hold keeps the window closed, unless it is open already, until it is called with false.
func (t *Topic) Hold(held bool) {
	t.mu.Lock()
	t.held = held
	complete := t.completeLocked()
	t.mu.Unlock()
	if complete {
		t.window.Open()
	}
}

// Drop ends a named group: what it has not settled counts as settled by it. It is not waited for any more if it was
// declared. An empty name stands for the group that is kept for the next subscription without a group.
func (t *Topic) Drop(group string) {
	t.mu.Lock()
	delete(t.declared, group)
	g := t.vacant
	if group != "" {
		g = t.findLocked(group)
	}
	var done []settledRange
	if g != nil {
		done = t.removeLocked(g)
	}
	complete := t.completeLocked()
	t.mu.Unlock()
	t.report(done)
	if complete {
		t.window.Open()
	}
	t.mayBeUnused()
}

// Backlog is the number of messages that the named group has not been given, or has given back.
func (t *Topic) Backlog(group string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.findLocked(group); g != nil {
		return g.backlog()
	}
	return 0
}

// Unused reports whether the topic has no group and may get one yet.
func (t *Topic) Unused() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.groups) == 0 && !t.ended
}

// HasMembers reports whether a member could handle the topic's messages.
func (t *Topic) HasMembers() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.groups, func(g *group) bool { return len(g.members) > 0 })
}

// Ended reports whether the topic has ended.
func (t *Topic) Ended() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ended
}

// Retire ends a topic that has no member and keeps no message. It returns false for any other.
func (t *Topic) Retire() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.unusedLocked() {
		return false
	}
	t.ended = true
	return true
}

func (t *Topic) unusedLocked() bool {
	for _, g := range t.groups {
		if g != t.vacant || g.initialized || g.unsettled.Load() > 0 {
			return false
		}
	}
	return !t.ended && !t.lasting && !t.ephemeral && t.beside.timer == nil && t.union.timer == nil
}

// mayBeUnused calls onUnused if the topic is unused now.
func (t *Topic) mayBeUnused() {
	t.mu.Lock()
	unused := t.onUnused != nil && t.unusedLocked()
	t.mu.Unlock()
	if unused {
		t.onUnused()
	}
}

// Close ends the topic for good, whatever it holds.
func (t *Topic) Close() {
	t.mu.Lock()
	t.beside.clear()
	t.union.clear()
	t.mu.Unlock()
	t.window.Close()
}

func (t *Topic) findLocked(name string) *group {
	for _, g := range t.groups {
		if g.name == name {
			return g
		}
	}
	return nil
}

// groupLocked returns a named group, and makes it if there is none.
func (t *Topic) groupLocked(name string) *group {
	if g := t.findLocked(name); g != nil {
		return g
	}
	delete(t.declared, name)
	return t.newcomerLocked(name)
}

// joinedGroupLocked returns the group that a new member of the named group belongs to.
func (t *Topic) joinedGroupLocked(name string) *group {
	if name != "" {
		return t.groupLocked(name)
	}
	return t.newcomerLocked("")
}

// newcomerLocked returns a group that did not exist under that name: the vacant one, or a new one.
func (t *Topic) newcomerLocked(name string) *group {
	g := t.vacant
	if g == nil {
		g = t.newGroupLocked(name)
	}
	var left []Delivery
	if g == t.vacant {
		if g.orphaned || g.initialized {
			left = g.copies()
		}
		t.vacant, g.name, g.initialized, g.orphaned = nil, name, false, false
	}
	if name == "" {
		g.giveAgain(t.union.live())
	}
	if len(left) > 0 {
		t.union.add(t, left)
	}
	return g
}

// newGroupLocked adds a group that starts at the end of the log.
func (t *Topic) newGroupLocked(name string) *group {
	g := &group{topic: t, name: name, cursor: t.tail, from: t.pos}
	t.groups = append(t.groups, g)
	return g
}

// completeLocked reports whether the window may give credit: there is a group, no declared one is missing, and the
// window is not held closed.
func (t *Topic) completeLocked() bool {
	return len(t.groups) > 0 && len(t.declared) == 0 && !t.held && !t.ended
}

// leaveLocked ends a membership. The caller has to report what it returns.
func (t *Topic) leaveLocked(m *Member) []settledRange {
	g := m.group
	if m.left {
		return nil
	}
	t.members--
	done := g.remove(m)
	if g.name != "" || g.dropped {
		return done
	}
	var named, stays bool
	for _, other := range t.groups {
		named = named || !unnamed(other)
		stays = stays || other != g && unnamed(other) && other.stays()
	}
	switch {
	case named:
		t.beside.clear()
		return append(done, t.removeLocked(g)...)
	case stays:
		t.beside.add(t, g.copies())
		return append(done, t.removeLocked(g)...)
	case t.vacant != nil: // another ended while this one did
		t.groups = slices.DeleteFunc(t.groups, func(o *group) bool { return o == g })
		return append(done, g.bequeath(t.vacant)...)
	}
	t.vacant, g.orphaned = g, true
	g.giveAgain(t.beside.live())
	t.beside.clear()
	return done
}

// removeLocked drops a group. The caller has to report what it returns.
func (t *Topic) removeLocked(g *group) []settledRange {
	t.groups = slices.DeleteFunc(t.groups, func(o *group) bool { return o == g })
	if t.vacant == g {
		t.vacant = nil
	}
	return g.drop()
}

func unnamed(g *group) bool { return g.name == "" }
