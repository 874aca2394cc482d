package buffstreams

import (
	"maps"
	"slices"
)

// holdUntil keeps the topics of all listeners closed, but for those that are open already, until ready or ended is
// closed, or the Manager. Others may hold them longer.
func (m *Manager) holdUntil(ready, ended <-chan struct{}) {
	if ready == nil || isClosed(ready) {
		return
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return
	}
	m.holds++
	m.wg.Go(func() { // Ends at the latest with Close, which waits for it.
		select {
		case <-ready:
		case <-ended:
		case <-m.ended.Done():
			return
		}
		m.mu.Lock()
		m.holds--
		m.mu.Unlock()
		m.hold()
	})
	m.mu.Unlock()
	m.hold()
}

// hold tells every listener whether its topics are held closed. It is called after each change.
func (m *Manager) hold() {
	m.holding.Lock()
	defer m.holding.Unlock()
	m.mu.Lock()
	held, all := m.holds > 0, slices.Collect(maps.Values(m.listeners))
	m.mu.Unlock()
	for _, o := range all {
		if o.built {
			o.listener.Hold(held)
		}
	}
}

// holdNew is hold for a listener that was just built.
func (m *Manager) holdNew(o *opening) {
	m.holding.Lock()
	defer m.holding.Unlock()
	m.mu.Lock()
	held := m.holds > 0
	m.mu.Unlock()
	o.built = true
	o.listener.Hold(held)
}
