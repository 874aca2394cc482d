package buffstreams

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/receiver"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// plainHooks calls the hooks of a Manager for the plain wire, whose Close does not wait for one that does not return.
type plainHooks struct {
	set     *hook.Set    // nil: there are none
	running atomic.Int64 // calls that have not returned
}

func (h *plainHooks) tell(call func(*hook.Set)) {
	if h.set == nil {
		return
	}
	h.running.Add(1)
	defer h.running.Add(-1)
	call(h.set)
}

// late names the hooks that have not returned, when all else has ended.
func (h *plainHooks) late() error {
	if n := h.running.Load(); n > 0 {
		return hooksLate(int(n))
	}
	return nil
}

// plainPeers are the plain peers that were dialed, for Stats.
type plainPeers struct {
	mu sync.Mutex // guards by; taken before the mu of a plainPeer
	by map[netio.Target]*plainPeer
}

// maxFailedPeers bounds the plain peers that are remembered without a connection.
const maxFailedPeers = 1000

// of returns what is known of a peer that is dialed now.
func (p *plainPeers) of(t netio.Target, told *plainHooks) *plainPeer {
	p.mu.Lock()
	defer p.mu.Unlock()
	peer := p.by[t]
	if peer == nil {
		if len(p.by) >= maxFailedPeers {
			maps.DeleteFunc(p.by, func(_ netio.Target, peer *plainPeer) bool { return peer.stateNow() == sender.Failed })
		}
		peer = &plainPeer{address: formatAddress(t), hooks: told, state: sender.Connecting, since: time.Now()}
		if p.by == nil {
			p.by = map[netio.Target]*plainPeer{}
		}
		p.by[t] = peer
	}
	return peer
}

// forget drops a peer that is written to no more.
func (p *plainPeers) forget(t netio.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.by, t)
}

// stats describes the peers at some targets, or, if that is nil, all.
func (p *plainPeers) stats(at map[netio.Target]bool) (all []AddressStats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for t, peer := range p.by {
		if at == nil || at[t] {
			all = append(all, peer.stats())
		}
	}
	return all
}

// plainPeer is what is known of one plain peer that is written to. It is a hook of its Writer, and tells those of the
// Manager.
type plainPeer struct {
	address string
	hooks   *plainHooks

	mu                 sync.Mutex // guards the fields below
	state              sender.State
	since              time.Time
	lastError          string
	errorAt            time.Time
	connects, failures uint64
}

// OnDialed implements hooks.DialedHook.
func (p *plainPeer) OnDialed(e hooks.Dialed) {
	e.Address = p.address
	p.hooks.tell(func(set *hook.Set) { set.Dialed(e) })
	if e.Err != nil {
		p.become(sender.Failed, e.Err)
	}
}

// OnConnected implements hooks.ConnectedHook.
func (p *plainPeer) OnConnected(e hooks.Connected) {
	e.Address = p.address
	p.hooks.tell(func(set *hook.Set) { set.Connected(e) })
	p.become(sender.Ready, nil)
}

// OnLost implements hooks.LostHook.
func (p *plainPeer) OnLost(e hooks.Lost) {
	e.Address = p.address
	p.hooks.tell(func(set *hook.Set) { set.Lost(e) })
	p.become(sender.Failed, e.Err)
}

// become notes another state, and tells of it.
func (p *plainPeer) become(state sender.State, err error) {
	now := time.Now()
	p.mu.Lock()
	changed := p.state != state
	if changed {
		p.state, p.since = state, now
	}
	if state == sender.Ready {
		p.connects++
	} else {
		p.failures++
	}
	if err != nil {
		p.lastError, p.errorAt = netio.Sanitize(err).Error(), now
	}
	p.mu.Unlock()
	if changed {
		p.hooks.tell(func(set *hook.Set) {
			set.AddressState(hooks.AddressState{Address: p.address, State: state.String(), Since: now, Err: err})
		})
	}
}

func (p *plainPeer) stateNow() sender.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

func (p *plainPeer) stats() AddressStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return AddressStats{
		Address: p.address, Plain: true, State: p.state.String(), Since: p.since, LastError: p.lastError, LastErrorAt: p.errorAt,
		Connects: p.connects, Failures: p.failures,
	}
}

// plainGuests are the connections of a plainReceiver. It is a hook of the listener, and tells those of the Manager.
type plainGuests struct {
	listener string
	hooks    *plainHooks

	mu   sync.Mutex // guards here
	here []receiver.PeerStats
}

// OnAccepted implements hooks.AcceptedHook.
func (g *plainGuests) OnAccepted(e hooks.Accepted) {
	e.Listener = g.listener
	g.mu.Lock()
	g.here = append(g.here, receiver.PeerStats{Address: e.Peer, Since: time.Now()})
	g.mu.Unlock()
	g.hooks.tell(func(set *hook.Set) { set.Accepted(e) })
}

// OnRefused implements hooks.RefusedHook.
func (g *plainGuests) OnRefused(e hooks.Refused) {
	e.Listener = g.listener
	g.hooks.tell(func(set *hook.Set) { set.Refused(e) })
}

// OnLost implements hooks.LostHook.
func (g *plainGuests) OnLost(e hooks.Lost) {
	e.Listener = g.listener
	g.mu.Lock()
	// Those of a Unix socket can have one address: any of them will do.
	if i := slices.IndexFunc(g.here, func(p receiver.PeerStats) bool { return p.Address == e.Address }); i >= 0 {
		g.here = slices.Delete(g.here, i, i+1)
	}
	g.mu.Unlock()
	g.hooks.tell(func(set *hook.Set) { set.Lost(e) })
}

// peers returns the connections, in the order of their addresses.
func (g *plainGuests) peers() []receiver.PeerStats {
	g.mu.Lock()
	all := slices.Clone(g.here)
	g.mu.Unlock()
	slices.SortFunc(all, func(a, b receiver.PeerStats) int { return strings.Compare(a.Address, b.Address) })
	return all
}
