package buffstreams

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// plainUses is which plain peers the publishers of a Manager write to. The writer of one that none of them uses any more
// is closed when everything is written.
type plainUses struct {
	mu      sync.Mutex // guards the fields below; taken before Manager.mu
	by      map[netio.Target]*plainUse
	closing map[string]chan struct{} // by key: closed when the writer is
}

type plainUse struct {
	publishers int
	limit      int // of a message, in bytes
}

// usePlain notes that a Publisher writes to a peer, when no earlier writer to it closes any more. The framing depends on
// the limit.
func (m *Manager) usePlain(t netio.Target, limit int) error {
	m.plainUses.mu.Lock()
	defer m.plainUses.mu.Unlock()
	for closing := m.plainUses.closing[formatAddress(t)]; closing != nil; closing = m.plainUses.closing[formatAddress(t)] {
		m.plainUses.mu.Unlock()
		<-closing // soon: it has written everything
		m.plainUses.mu.Lock()
	}
	u := m.plainUses.by[t]
	switch {
	case u == nil:
		u = &plainUse{limit: limit}
		if m.plainUses.by == nil {
			m.plainUses.by = map[netio.Target]*plainUse{}
		}
		m.plainUses.by[t] = u
	case u.limit != limit:
		return configError("PublisherConfig.MaxMessageSize", "another Publisher of the Manager writes to %s with %d, not %d: "+
			"of that the framing depends", formatAddress(t), u.limit, limit)
	}
	u.publishers++
	return nil
}

// releasePlain ends a use. Everything must be written. It does not block.
func (m *Manager) releasePlain(t netio.Target) {
	m.plainUses.mu.Lock()
	defer m.plainUses.mu.Unlock()
	u := m.plainUses.by[t]
	if u.publishers--; u.publishers > 0 {
		return
	}
	delete(m.plainUses.by, t)
	m.closePlainLocked(t)
}

// closePlainLocked closes the writer to a peer, if there is one, unless the Manager does. The caller must hold the mu of
// plainUses.
func (m *Manager) closePlainLocked(t netio.Target) {
	key := formatAddress(t)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || !slices.Contains(m.writers, key) {
		return
	}
	m.writers = slices.DeleteFunc(slices.Clone(m.writers), func(k string) bool { return k == key })
	m.peers.forget(t) // before another Publisher dials it again
	closed := make(chan struct{})
	if m.plainUses.closing == nil {
		m.plainUses.closing = map[string]chan struct{}{}
	}
	m.plainUses.closing[key] = closed
	m.wg.Go(func() { // ends within plainCloseGrace; Manager.Close waits for it
		_ = m.plain.CloseWriter(key) // it holds nothing
		m.plainUses.mu.Lock()
		delete(m.plainUses.closing, key)
		m.plainUses.mu.Unlock()
		close(closed)
	})
}

// dialPlain opens the writer to a plain peer, unless there is one.
func (m *Manager) dialPlain(t netio.Target, cfg pool.WriterConfig) error {
	switch err := m.plain.Dial(cfg); {
	case errors.Is(err, pool.ErrAlreadyOpened):
		return nil
	case err != nil:
		return err
	}
	m.plainUses.mu.Lock()
	defer m.plainUses.mu.Unlock()
	m.mu.Lock()
	m.writers = append(slices.Clip(m.writers), cfg.Key)
	m.mu.Unlock()
	if m.plainUses.by[t] == nil { // it has taken longer than its publisher wanted it
		m.closePlainLocked(t)
	}
	return nil
}

// use notes an address that a topic leads to, for flush.
func (p *plainPublisher) use(t netio.Target) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.used[t]; !ok {
		if err := p.publisher.manager.usePlain(t, p.publisher.cfg.MaxMessageSize); err != nil {
			return err
		}
	}
	p.used[t]++
	return nil
}

// leave ends a use. A writer that has something to write yet stays with the Manager, and in use until flush finds that
// it has written that.
func (p *plainPublisher) leave(t netio.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used[t]--
	p.forgetLocked(t)
}

// tick gives up what is written by now. It does not block.
func (p *plainPublisher) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t := range p.used {
		p.forgetLocked(t)
	}
}

// forgetLocked gives up an address that no topic leads to and whose messages are all written. The caller must hold mu.
func (p *plainPublisher) forgetLocked(t netio.Target) {
	if topics, there := p.used[t]; topics > 0 || !there { // another one has given it up
		return
	}
	err := p.publisher.manager.plain.Flush(noWait, formatAddress(t))
	switch {
	case errors.Is(err, context.Canceled):
		return
	case err != nil && !errors.Is(err, pool.ErrNotOpened) && !errors.Is(err, pool.ErrClosed):
		p.lost = append(p.lost, err)
	}
	delete(p.used, t)
	p.publisher.manager.releasePlain(t)
}
