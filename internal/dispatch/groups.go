package dispatch

import (
	"slices"
)

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

// Join adds a member to a group; with an empty name, to a group of its own. It returns nil if the topic has ended.
// notify is called when the member is not alone any more, and when a message may be there after a Take that found none.
// It is called with the topic's lock held: it must neither block nor call the topic or a member.
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

// HasMembers reports whether a member could handle the topic's messages.
func (t *Topic) HasMembers() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.groups, func(g *group) bool { return len(g.members) > 0 })
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
		stays = stays || unnamed(other) && other.stays() // g has no member any more
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
