// Package dispatch holds received messages in memory until their consumers have settled them: a log for each topic,
// consumer groups that read it, and the window that bounds it. It has no goroutine and no clock.
//
// A message comes in with Topic.Append, waits in a run of the log, and goes out with Member.Take. It comes back with
// Member.Settle or Refuse, which report it to its Source, or with Return and Yield, which give it to the group again.
//
// Locks: Topic.mu guards the topic's log, its groups and their members. Sources and windows are called without it.
package dispatch

import (
	"slices"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// Refusal says why a message will not be handled.
type Refusal struct {
	Undecodable bool
	TooLarge    bool // the Unmarshaler found it over a limit; it is Undecodable too
	Reason      string
}

// Source is where messages come from. Each message is reported to it once, when every group has settled it: refused if
// one of them refused it. The methods are called from any goroutine, with no lock of this package held.
type Source interface {
	// Settled reports consecutive messages.
	Settled(first, last uint64)
	Refused(seq uint64, r Refusal)
}

// Topic is the log of one topic and its groups. Its methods are safe for concurrent use.
type Topic struct {
	name           string
	window         *flow.Window
	size           func(n int) int // of a message of n bytes, as the window counts it
	ackImmediately bool

	mu        sync.Mutex // guards what follows, the groups and members, and what their docs say
	tail      *entry
	pos       uint64          // of the next message that is appended
	groups    []*group        // named ones, and those of single subscriptions
	vacant    *group          // one of groups: without a name, kept for the next single subscription
	declared  map[string]bool // named groups that do not exist yet
	ephemeral bool            // the topic ends with its last member
	onEnd     func(dropped int)
	ended     bool
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
	t := &Topic{name: name, window: window, size: size, tail: &entry{}, declared: map[string]bool{}}
	for _, g := range declared {
		t.declared[g] = true
	}
	return t
}

// AckImmediately makes acks urgent at all times: what was acked and is not reported would come again after a crash. It
// is called before the first Join.
func (t *Topic) AckImmediately() { t.ackImmediately = true }

// Name is the topic's name on the wire.
func (t *Topic) Name() string { return t.name }

// Window bounds the topic.
func (t *Topic) Window() *flow.Window { return t.window }

// Append adds consecutive messages of a source, received at at, whose room was reserved in the window. It copies them;
// with own, it keeps the memory of a single one instead.
func (t *Topic) Append(source Source, first uint64, msgs [][]byte, at time.Time, own bool) {
	if len(msgs) == 0 {
		return
	}
	if !t.append(newRun(source, first, msgs, at, own)) {
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
	if len(t.groups) == 0 { // all were dropped after the window had given credit
		t.vacant = t.newGroupLocked("")
	}
	r.setGroups(len(t.groups))
	r.pos = t.pos
	t.pos += uint64(r.count())
	t.tail.run, t.tail.next = r, &entry{}
	t.tail = t.tail.next
	for _, g := range t.groups {
		g.wake(r.count())
	}
	return true
}

// Initialize makes a group exist: it gets every message from now on. An empty name stands for the next subscription
// without a group.
func (t *Topic) Initialize(group string) {
	t.mu.Lock()
	if group != "" {
		t.groupLocked(group)
	} else if !slices.ContainsFunc(t.groups, unnamed) {
		t.vacant = t.newGroupLocked("")
	}
	complete := t.completeLocked()
	t.mu.Unlock()
	if complete {
		t.window.Open()
	}
}

// Join adds a member to a group; with an empty name, to a group of its own. notify is called when the member is not
// alone any more, and when a message may be there after a Take that found none. It is called with the topic's lock
// held: it must neither block nor call the topic or a member.
func (t *Topic) Join(group string, notify func()) *Member {
	t.mu.Lock()
	m := &Member{group: t.joinedGroupLocked(group), notify: notify}
	m.group.add(m)
	complete := t.completeLocked()
	t.mu.Unlock()
	if complete {
		t.window.Open()
	}
	return m
}

// Drop ends a named group: what it has not settled counts as settled by it.
func (t *Topic) Drop(group string) {
	if group == "" {
		return
	}
	t.mu.Lock()
	var done []settledRange
	if g := t.findLocked(group); g != nil {
		done = t.removeLocked(g)
	}
	t.mu.Unlock()
	t.report(done)
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
	return t.newGroupLocked(name)
}

// joinedGroupLocked returns the group that a new member of the named group belongs to.
func (t *Topic) joinedGroupLocked(name string) *group {
	if name != "" {
		return t.groupLocked(name)
	}
	if g := t.vacant; g != nil {
		t.vacant = nil
		return g
	}
	return t.newGroupLocked("")
}

// newGroupLocked adds a group that starts at the end of the log.
func (t *Topic) newGroupLocked(name string) *group {
	g := &group{topic: t, name: name, cursor: t.tail}
	t.groups = append(t.groups, g)
	return g
}

// completeLocked reports whether the window may give credit: there is a group, and no declared one is missing.
func (t *Topic) completeLocked() bool { return len(t.groups) > 0 && len(t.declared) == 0 }

// leaveLocked ends a membership. The caller has to report what it returns.
func (t *Topic) leaveLocked(m *Member) []settledRange {
	g := m.group
	if m.left {
		return nil
	}
	g.remove(m)
	if g.name != "" {
		g.wake(len(g.waiters)) // m may have been notified of a message that it leaves to them
		return nil
	}
	for _, other := range t.groups {
		if other != g && unnamed(other) {
			return t.removeLocked(g)
		}
	}
	t.vacant = g
	return nil
}

// removeLocked drops a group. The caller has to report what it returns.
func (t *Topic) removeLocked(g *group) []settledRange {
	t.groups = slices.DeleteFunc(t.groups, func(o *group) bool { return o == g })
	return g.drop()
}

func unnamed(g *group) bool { return g.name == "" }
