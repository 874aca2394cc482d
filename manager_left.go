package buffstreams

import "slices"

// leftBehind is what a closed Publisher leaves to its Manager of a topic: streams that hold messages, and the addresses
// to which they can move. These are in use until no stream holds any.
type leftBehind struct {
	streams   []stream
	addresses []*address
}

// leavesLocked returns what a topic leaves behind. The caller must hold the Publisher's mu.
func (s *topicState) leavesLocked() (l leftBehind) {
	for _, f := range s.slotFlowsLocked() {
		l.streams = append(l.streams, f.stream)
	}
	for _, t := range s.allLocked() {
		if t.fixed != nil || t.addr == nil {
			continue // nothing of it can move
		}
		l.addresses = append(l.addresses, t.addr)
		for _, f := range t.flows() {
			l.streams = append(l.streams, f.stream)
		}
	}
	return l
}

func (l *leftBehind) settled() bool {
	return !slices.ContainsFunc(l.streams, func(s stream) bool { return s.Unsettled() > 0 })
}

// keep takes over what a Publisher leaves behind, before that gives its addresses up.
func (m *Manager) keep(all []leftBehind) {
	for _, l := range all {
		if l.settled() {
			continue
		}
		for _, a := range l.addresses {
			m.reuse(a)
		}
		m.mu.Lock()
		m.left = append(m.left, &l)
		m.mu.Unlock()
	}
}

// tickLeft gives up the addresses of what is settled by now. It is called by tick alone.
func (m *Manager) tickLeft() {
	m.mu.Lock()
	all := slices.Clone(m.left)
	m.mu.Unlock()
	for _, l := range all {
		if !l.settled() {
			continue
		}
		m.mu.Lock()
		m.left = slices.DeleteFunc(m.left, func(o *leftBehind) bool { return o == l })
		m.mu.Unlock()
		for _, a := range l.addresses {
			m.release(a)
		}
	}
}
