package dispatch

// GroupSource is a Source that remembers across restarts which messages each named group has settled, so that a group
// does not get again what it had settled and another had not.
type GroupSource interface {
	Source
	// SettledBy reports consecutive messages that a named group has settled and another group has not. It is called as
	// Settled is.
	SettledBy(group string, first, last uint64)
	// Knew tells whether a named group had settled a message in an earlier life. It is called with the topic's lock
	// held, for a source that remembers anything, and always has the same answer.
	Knew(group string, seq uint64) bool
	// Remembers tells whether Knew may say true of any message.
	Remembers() bool
}

// remembering returns the source of r if it remembers anything of what groups had settled, or nil.
func (r *run) remembering() GroupSource {
	if s, ok := r.source.(GroupSource); ok && s.Remembers() {
		return s
	}
	return nil
}

// skips tells whether the group had settled a message in an earlier life. Then it is settled for the group once more.
func (g *group) skips(d *Delivery) bool {
	if d.run.known == nil || g.name == "" || !d.run.known.Knew(g.name, d.run.first+uint64(d.index)) {
		return false
	}
	if d.run.shared() {
		d.run.left[d.index] |= handled
	}
	if s, last := d.settle(nil, g.topic.size); last {
		s.handled = true
		g.topic.skipped = appendSettled(g.topic.skipped, s)
	}
	g.unsettled.Add(-1)
	return true
}

// takeSkippedLocked returns what was skipped and has to be reported.
func (t *Topic) takeSkippedLocked() []settledRange {
	skipped := t.skipped
	t.skipped = nil
	return skipped
}

// reportPart passes messages that one group has settled, and others have not, to sources that remember them.
func (g *group) reportPart(part []settledRange) {
	for _, s := range part {
		if source, ok := s.run.source.(GroupSource); ok {
			first := s.run.first + uint64(s.index)
			source.SettledBy(g.name, first, first+uint64(s.count)-1)
		}
	}
}
