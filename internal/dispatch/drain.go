package dispatch

import "slices"

// A member whose consumer has begun to end drains: it takes only messages that no connected sender keeps, and these
// only while no other member of its group could take them.

// Unkept reports whether the message is lost with the process: no connected sender keeps it, and it is not given out
// once more.
func (d *Delivery) Unkept() bool { return !d.run.source.Kept() && !d.Again() }

// BeginDrain makes Take find nothing from now on. What was reserved for the member, or it was notified of, is the
// others'.
func (m *Member) BeginDrain() {
	g := m.group
	g.topic.mu.Lock()
	m.draining = true
	done := g.passOn(m)
	g.topic.mu.Unlock()
	g.topic.report(done)
}

// HasSuccessor reports whether another member of the group takes messages, and does not drain.
func (m *Member) HasSuccessor() bool {
	m.group.topic.mu.Lock()
	defer m.group.topic.mu.Unlock()
	return m.hasSuccessorLocked()
}

func (m *Member) hasSuccessorLocked() bool {
	return slices.ContainsFunc(m.group.members, func(other *Member) bool { return other != m && !other.stopped && !other.draining })
}

// TakeUnkept returns the group's next message that no connected sender keeps, if the member drains and has no
// successor. It is not notified of others. With toClaim the delivery is to be claimed, as that of TakeInto, and messages
// come too that are kept and whose key is not known yet: it may be that of a later message.
func (m *Member) TakeUnkept(toClaim bool) (d Delivery, ok bool) {
	g := m.group
	g.topic.mu.Lock()
	if !m.stopped && !g.dropped && !m.hasSuccessorLocked() {
		d, ok = g.popUnkept(toClaim)
	}
	if ok && toClaim && d.key == nil {
		g.addUnclaimed(d.pos())
	}
	skipped := g.topic.takeSkippedLocked()
	g.topic.mu.Unlock()
	g.topic.report(skipped)
	return d, ok
}

// popUnkept is pop for TakeUnkept. What it passes over stays in its place.
func (g *group) popUnkept(toClaim bool) (Delivery, bool) {
	wanted := func(d Delivery) bool { return d.Unkept() || toClaim && d.key == nil && !d.keyless && !d.Again() }
	for {
		i := slices.IndexFunc(g.returned, wanted)
		if i < 0 {
			break
		}
		d := g.returned[i]
		g.returned = slices.Delete(g.returned, i, i+1)
		if !g.skips(&d) {
			return d, true
		}
	}
	for {
		var d Delivery
		switch {
		case !g.popCursor(&d):
			return d, false
		case g.skips(&d):
		case wanted(d):
			return d, true
		default:
			g.returned = append(g.returned, d) // which are before the cursor
		}
	}
}
