package buffstreams

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
)

const (
	// freshFor is how long the first attempt to connect to an address of a route may take before others are used in its
	// place.
	freshFor = 300 * time.Millisecond
	// stableAfter is how long an address must have been ready before Failover goes back to it.
	stableAfter = 5 * time.Second
	// lingerFor is how long an address that nothing uses keeps its connection: publishers that come one after another
	// share it.
	lingerFor = time.Second
	// routedPing and routedDead are the silence after which an address of a route with others is pinged and given up,
	// where AckedConfig does not say less.
	routedPing, routedDead = 4 * time.Second, 12 * time.Second
)

// address is what a Manager knows of an address that is published to. It lives until nothing uses it and it holds
// nothing.
type address struct {
	target netio.Target // as the first that used it has spelled it
	sender *sender.Sender
	made   time.Time
	tried  atomic.Bool  // an attempt to connect has failed, or succeeded
	ready  atomic.Int64 // since when it is ready, in Unix nanoseconds; 0: it is not

	// Guarded by Manager.mu.
	uses   int // topics and streams that have it
	unused time.Time
}

// state is the state as routes name it.
func (a *address) state() policy.State {
	switch a.sender.State() {
	case sender.Connecting:
		return policy.Connecting
	case sender.Ready:
		return policy.Ready
	case sender.Draining:
		return policy.Draining
	case sender.Failed, sender.Gone, sender.Silent:
		return policy.Failed
	}
	return policy.Idle
}

// fresh tells that the first attempt to connect is under way and has not taken long.
func (a *address) fresh(now time.Time) bool { return !a.tried.Load() && now.Sub(a.made) < freshFor }

// readyFor is how long the address has been ready; 0: it is not.
func (a *address) readyFor(now time.Time) time.Duration {
	since := a.ready.Load()
	if since == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, since))
}

// stable tells that the address has been ready for a while.
func (a *address) stable(now time.Time) bool { return a.readyFor(now) >= stableAfter }

// changed notes that the state of the address is another one, and tells whether it was ready before, or was
// tried for the first time, and is not.
func (a *address) changed() (lost bool) {
	switch a.state() {
	case policy.Ready:
		a.tried.Store(true)
		a.ready.CompareAndSwap(0, time.Now().UnixNano())
	case policy.Failed, policy.Draining:
		lost = a.ready.Swap(0) != 0
		lost = !a.tried.Swap(true) || lost
	}
	return lost
}

// isLost tells that changed has said so, and the address has not been ready since.
func (a *address) isLost() bool { return a.tried.Load() && a.ready.Load() == 0 }

// changes lets callers wait for the next change, such as that of any address.
type changes struct {
	count atomic.Uint64 // of changes so far
	mu    sync.Mutex    // guards next
	next  chan struct{} // closed by the next change; nil while no caller waits
}

// wait returns a channel that is closed at the next change.
func (c *changes) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = make(chan struct{})
	}
	return c.next
}

func (c *changes) signal() {
	c.count.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		close(c.next)
		c.next = nil
	}
}

// use returns the address of a target, and makes it where there is none. The caller must call release.
func (m *Manager) use(t netio.Target) (*address, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, ErrManagerClosed
	}
	if a := m.addresses[t.Canonical()]; a != nil {
		a.uses++
		return a, nil
	}
	if err := m.mayDial(t); err != nil {
		return nil, err
	}
	cfg, err := m.senderConfig(t)
	if err != nil {
		return nil, err
	}
	a := &address{target: t, made: time.Now(), uses: 1}
	cfg.Changed = func(*sender.Sender) { m.addressChanged(a) }
	a.sender = sender.New(cfg)
	m.addresses[t.Canonical()] = a
	m.startTickerLocked()
	return a, nil
}

// mayDial returns why an address will never be dialed, as far as its spelling tells.
func (m *Manager) mayDial(t netio.Target) error {
	if m.cfg.DialAllow == nil || m.cfg.Dial != nil {
		return nil
	}
	return (*netio.DialAllow)(m.cfg.DialAllow).AllowsLiteral(t)
}

func (m *Manager) startTickerLocked() {
	if !m.ticking && !m.closed {
		m.ticking = true
		m.wg.Go(func() { m.ticker.Run(m.ended.Done(), m.tick) }) // ends with Close, which waits for it
	}
}

// addressOf returns the address of a sender with one more use, or nil if the sender is closed.
func (m *Manager) addressOf(s *sender.Sender) *address {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.addresses {
		if a.sender == s {
			a.uses++
			return a
		}
	}
	return nil
}

// reuse is use for an address that the caller knows to be in use.
func (m *Manager) reuse(a *address) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a.uses++
}

// release ends a use. An address without one is closed when it holds nothing.
func (m *Manager) release(a *address) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.uses--; a.uses == 0 {
		a.unused = time.Now()
		a.sender.Undial()
	}
}

// addressChanged is called, without a lock, by an address's sender whose state is another one.
func (m *Manager) addressChanged(a *address) {
	lost := a.changed()
	m.changes.signal()
	if lost {
		m.mu.Lock()
		publishers := m.routing
		m.mu.Unlock()
		for _, p := range publishers {
			p.addressLost(a)
		}
	}
	if m.hooks == nil {
		return
	}
	err, _ := a.sender.Unreachable()
	m.hooks.AddressState(hooks.AddressState{Address: formatAddress(a.target), State: a.sender.State().String(), Since: time.Now(), Err: err})
}

// joinRouting has a publisher told of changes of addresses, and of the time, until leaveRouting.
func (m *Manager) joinRouting(p *Publisher) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.routing, p) {
		m.routing = append(slices.Clip(m.routing), p)
		m.startTickerLocked()
	}
}

func (m *Manager) leaveRouting(p *Publisher) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.routing = slices.DeleteFunc(slices.Clone(m.routing), func(o *Publisher) bool { return o == p })
}

// tick keeps the time of the addresses, and of the publishers that have routes.
func (m *Manager) tick(now time.Time) (busy bool) {
	m.mu.Lock()
	senders := make([]*sender.Sender, 0, len(m.addresses))
	var unused []*address
	for _, a := range m.addresses {
		senders = append(senders, a.sender)
		if a.uses == 0 && now.Sub(a.unused) >= lingerFor {
			unused = append(unused, a)
		}
	}
	publishers := m.routing
	m.mu.Unlock()
	for _, s := range senders {
		busy = s.Tick(now) || busy
	}
	for _, p := range publishers {
		p.tick(now)
	}
	m.tickLeft()
	for _, a := range unused {
		m.retire(a, now)
	}
	return busy
}

// retire closes an address that nothing uses and that holds nothing. One that has to hear of streams which left it while
// it was silent is dialed for ForgetAfter. It does not block.
func (m *Manager) retire(a *address, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.uses > 0 || m.addresses[a.target.Canonical()] != a || m.closed {
		return
	}
	if late := now.Sub(a.unused) >= m.cfg.Acked.ForgetAfter; !a.sender.Retire(late) {
		return
	}
	delete(m.addresses, a.target.Canonical())
	m.wg.Go(func() { a.sender.Close() }) // ends within half a second; Manager.Close waits for it
}

// senders returns the senders to all addresses.
func (m *Manager) senders() map[netio.Target]*sender.Sender {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sendersLocked()
}

func (m *Manager) sendersLocked() map[netio.Target]*sender.Sender {
	all := make(map[netio.Target]*sender.Sender, len(m.addresses))
	for _, a := range m.addresses {
		all[a.target] = a.sender
	}
	return all
}
