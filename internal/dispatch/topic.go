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

// Unused reports whether the topic has no group and may get one yet.
func (t *Topic) Unused() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.groups) == 0 && !t.ended
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
