// Package dispatch holds received messages in memory until their consumers have settled them: a log per topic, consumer
// groups that read it, and the window that bounds it. It has no goroutine and no clock.
//
// Locks: a Topic's mutex guards its log, its groups and their members. Sources and windows are called with no lock held.
package dispatch

import (
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// Refusal says why a message will not be handled.
type Refusal struct {
	Undecodable bool
	Reason      string
}

// Source is where messages come from. Each message is reported back once, when every group has settled it, in runs from
// first to last where there are any.
// Its methods are called with no lock of this package held, from any goroutine.
type Source interface {
	Settled(first, last uint64)
	Refused(seq uint64, r Refusal)
}

// link is a place in a topic's log. Only the log's readers hold links: what all of them have passed is garbage, whoever
// still holds a message that came before it.
type link struct {
	node *node // nil at the end of the log
	next *link
}

// Topic is the log of one topic and its groups.
type Topic struct {
	name   string
	window *flow.Window
	size   func(n int) int // of a message of n bytes, as the window counts it

	mu       sync.Mutex
	tail     *link
	pos      uint64
	groups   []*Group // named ones, those of single subscriptions, and vacant
	vacant   *Group   // holds what waits for the next subscription without a group
	declared map[string]bool
	prompt   bool // acks are always urgent

	onEnd     func(dropped int)
	ephemeral bool // it ends with its last member
	ended     bool
}

// NewTopic returns an empty topic whose window opens with its first group, or, where groups are declared, when all of
// these exist. size tells what a message of n bytes takes of the window.
func NewTopic(name string, window *flow.Window, size func(n int) int, declared ...string) *Topic {
	t := &Topic{name: name, window: window, size: size, tail: &link{}}
	for _, g := range declared {
		if t.declared == nil {
			t.declared = map[string]bool{}
		}
		t.declared[g] = true
	}
	return t
}

// Prompt makes acks urgent at all times: what was acked and is not reported yet would come again after a crash. It is called
// before the first Join.
func (t *Topic) Prompt() { t.prompt = true }

// Name is the topic's name on the wire.
func (t *Topic) Name() string { return t.name }

// Window is what bounds the topic.
func (t *Topic) Window() *flow.Window { return t.window }

// Append adds consecutive messages of a source, received at at, whose room was reserved in the window. They are copied; with
// own, the memory of a single one is kept instead.
func (t *Topic) Append(source Source, first uint64, msgs [][]byte, at time.Time, own bool) {
	if len(msgs) == 0 {
		return
	}
	n := newNode(source, first, msgs, at, own)
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		t.discard(msgs)
		return
	}
	if len(t.groups) == 0 { // all were dropped after credit was given
		t.vacate(t.newGroup(""))
	}
	n.shared(len(t.groups))
	n.pos = t.pos
	t.pos += uint64(len(msgs))
	t.tail.node, t.tail.next = n, &link{}
	t.tail = t.tail.next
	for _, g := range t.groups {
		g.wake(len(msgs))
	}
	t.mu.Unlock()
}

// Initialize makes a group exist: it gets every message from now on. An empty name stands for the next subscription
// without a group.
func (t *Topic) Initialize(group string) {
	t.mu.Lock()
	if group == "" {
		if t.vacant == nil && !t.hasSingle() {
			t.vacate(t.newGroup(""))
		}
	} else {
		t.group(group)
	}
	ready := t.complete()
	t.mu.Unlock()
	if ready {
		t.window.Open()
	}
}

// Join adds a member to a group. notify is called, with the topic's lock held, when a message may be there for a member
// whose last Take found none; it must not block.
func (t *Topic) Join(group string, notify func()) *Member {
	t.mu.Lock()
	var g *Group
	switch {
	case group != "":
		g = t.group(group)
	case t.vacant != nil:
		g, t.vacant = t.vacant, nil
	default:
		g = t.newGroup("")
	}
	m := &Member{group: g, notify: notify}
	others := g.members
	g.members = append(g.members, m)
	g.size.Store(int32(len(g.members)))
	for _, other := range others {
		other.notify() // it is not alone any more
	}
	ready := t.complete()
	t.mu.Unlock()
	if ready {
		t.window.Open()
	}
	return m
}

// Drop ends a named group: what it has not settled counts as settled by it.
func (t *Topic) Drop(group string) {
	t.mu.Lock()
	var done []settled
	for _, g := range t.groups {
		if g.name == group && group != "" {
			done = t.remove(g)
			break
		}
	}
	t.mu.Unlock()
	t.report(done)
}

// Backlog is the number of messages that the named group has not been given, or has given back.
func (t *Topic) Backlog(group string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range t.groups {
		if g.name == group {
			return g.backlog()
		}
	}
	return 0
}

func (t *Topic) group(name string) *Group {
	for _, g := range t.groups {
		if g.name == name {
			return g
		}
	}
	g := t.newGroup(name)
	delete(t.declared, name)
	return g
}

// newGroup adds a group that starts at the end of the log.
func (t *Topic) newGroup(name string) *Group {
	g := &Group{topic: t, name: name, at: t.tail}
	t.groups = append(t.groups, g)
	return g
}

func (t *Topic) vacate(g *Group) { t.vacant = g }

func (t *Topic) hasSingle() bool {
	for _, g := range t.groups {
		if g.name == "" {
			return true
		}
	}
	return false
}

// complete tells whether credit may be given: there is a group, and none of the declared ones is missing.
func (t *Topic) complete() bool { return len(t.groups) > 0 && len(t.declared) == 0 }

// leave ends a member of a group without a name: its messages wait for the next such subscription if it was the last,
// otherwise they are no longer anybody's. t.mu is held.
func (t *Topic) leave(g *Group) []settled {
	others := false
	for _, other := range t.groups {
		others = others || other != g && other.name == ""
	}
	if others {
		return t.remove(g)
	}
	t.vacate(g)
	return nil
}

// remove takes a group out and settles for it what it had not. t.mu is held.
func (t *Topic) remove(g *Group) (done []settled) {
	for i, other := range t.groups {
		if other == g {
			t.groups = append(t.groups[:i], t.groups[i+1:]...)
			break
		}
	}
	g.gone = true
	g.unpark()
	for {
		d, ok := g.pop()
		if !ok {
			return done
		}
		if s, ok := t.settle(d, nil); ok {
			done = join(done, s)
		}
		d.skip()
	}
}

// settled is a run of messages of a node that every group has settled; a refused one is alone.
type settled struct {
	node         *node
	index, count int
	bytes        int // as the window counts them
	refusal      *Refusal
}

// join appends a run, or lengthens the last one by it.
func join(done []settled, s settled) []settled {
	if n := len(done); n > 0 {
		last := &done[n-1]
		if last.node == s.node && last.index+last.count == s.index && last.refusal == nil && s.refusal == nil {
			last.count += s.count
			last.bytes += s.bytes
			return done
		}
	}
	return append(done, s)
}

// report tells sources and the window of settled messages. t.mu is not held.
func (t *Topic) report(done []settled) {
	for _, s := range done {
		first := s.node.first + uint64(s.index)
		if s.refusal != nil {
			s.node.source.Refused(first, *s.refusal)
		} else {
			s.node.source.Settled(first, first+uint64(s.count)-1)
		}
		t.window.Release(flow.Amount{Messages: s.count, Bytes: s.bytes})
	}
}

// Ephemeral makes the topic end with its last member: what is pending then is dropped, and onEnd, called with no lock
// held, is told how much that was.
func (t *Topic) Ephemeral(onEnd func(dropped int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ephemeral, t.onEnd = true, onEnd
}

// IsEphemeral tells whether the topic ends with its last member.
func (t *Topic) IsEphemeral() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ephemeral
}

// Deserted tells whether nobody has ever asked for the topic's messages.
func (t *Topic) Deserted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.groups) == 0 && !t.ended
}

// expire ends an ephemeral topic without members. t.mu is held.
func (t *Topic) expire() (dropped []settled, over bool) {
	if !t.ephemeral || t.ended {
		return nil, false
	}
	for _, g := range t.groups {
		if len(g.members) > 0 {
			return nil, false
		}
	}
	t.ended = true
	for len(t.groups) > 0 {
		dropped = append(dropped, t.remove(t.groups[0])...)
	}
	return dropped, true
}

// discard frees the room of messages that arrived too late.
func (t *Topic) discard(msgs [][]byte) {
	for _, m := range msgs {
		t.window.Release(flow.Amount{Messages: 1, Bytes: t.size(len(m))})
	}
}
