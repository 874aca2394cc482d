package buffstreams

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/receiver"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// Stats describes the Manager. It makes nothing, dials nothing, and holds up what it looks at for no longer than one
// topic or address takes at a time. Calls within a second share a result, which must not be changed.
func (m *Manager) Stats() ManagerStats { return m.stats.get(m.collectStats) }

func (m *Manager) collectStats(now time.Time) ManagerStats {
	limit := m.cfg.Acked.MemoryLimit
	m.mu.Lock()
	closed := m.closed
	m.mu.Unlock()
	return ManagerStats{
		Version: StatsVersion, At: now, Closed: closed, NotReady: m.notReady(),
		Addresses: m.addressStats(m.senders(), nil), Listeners: m.listenerStats(nil),
		Memory: MemoryStats{Limit: limit, Sending: limit - m.kept.Free(), Receiving: limit - m.held.Free()},
	}
}

// addressStats describes senders, and the plain peers at some targets (nil: all), in the order of their addresses.
func (m *Manager) addressStats(senders map[netio.Target]*sender.Sender, plain map[netio.Target]bool) []AddressStats {
	all := make([]AddressStats, 0, len(senders))
	for target, s := range senders {
		all = append(all, addressStats(formatAddress(target), s.Stats()))
	}
	all = append(all, m.peers.stats(plain)...)
	slices.SortFunc(all, func(a, b AddressStats) int { return strings.Compare(a.Address, b.Address) })
	return all
}

func addressStats(address string, s sender.Stats) AddressStats {
	a := AddressStats{
		Address: address, State: s.State.String(), Since: s.Since, LastError: s.LastError, LastErrorAt: s.ErrorAt,
		Connects: s.Connects, Failures: s.Failures,
		Sent: s.Totals.Sent, SentBytes: s.Totals.SentBytes, Settled: s.Totals.Settled, Refused: s.Totals.Refused,
	}
	for _, stream := range s.Streams {
		a.Pending += stream.Pending
		a.Unreceived += stream.Unreceived
		a.OldestUnsettled = earlier(a.OldestUnsettled, stream.Oldest)
		a.Streams = append(a.Streams, StreamStats{
			Topic: stream.Topic, Outbox: stream.Fetched, Pending: stream.Pending, Unreceived: stream.Unreceived,
			Bytes: stream.Bytes, OldestUnsettled: stream.Oldest, Waiting: stream.Waiting, Groups: groupsText(stream.Groups),
		})
	}
	return a
}

func groupsText(digest uint64) string {
	if digest == 0 {
		return ""
	}
	return fmt.Sprintf("%016x", digest)
}

// earlier is the earlier of two times that are not zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// openListeners returns the listeners that are there, by where they listen.
func (m *Manager) openListeners() map[netio.Target]listener {
	m.mu.Lock()
	all := maps.Clone(m.listeners)
	m.mu.Unlock()
	there := map[netio.Target]listener{}
	for t, o := range all {
		if isClosed(o.done) && o.err == nil {
			there[t] = o.listener
		}
	}
	return there
}

// listenerStats describes the listeners at some targets, or, if that is nil, at all, in the order of their addresses.
func (m *Manager) listenerStats(at map[netio.Target]bool) []ListenerStats {
	all := []ListenerStats{}
	for t, l := range m.openListeners() {
		if at == nil || at[t] {
			all = append(all, listenerStats(t, l))
		}
	}
	slices.SortFunc(all, func(a, b ListenerStats) int { return strings.Compare(a.Address, b.Address) })
	return all
}

func listenerStats(t netio.Target, l listener) ListenerStats {
	s := l.Stats()
	_, plain := l.(*plainReceiver)
	stats := ListenerStats{
		Address: formatAddress(t), Bound: l.Addr().String(), Plain: plain, State: "open",
		Peers: make([]PeerStats, 0, len(s.Peers)), Publishers: s.Publishers,
		Received: s.Received, Duplicates: s.Duplicates, Rejected: s.Rejected, Topics: make([]TopicStats, 0, len(s.Topics)),
	}
	switch {
	case s.Draining:
		stats.State = "draining"
	case s.Held:
		stats.State = "held"
	}
	for _, p := range s.Peers {
		stats.Peers = append(stats.Peers, PeerStats(p))
	}
	for i := range s.Topics {
		stats.Topics = append(stats.Topics, topicStats(&s.Topics[i]))
	}
	return stats
}

func topicStats(t *receiver.TopicStats) TopicStats {
	stats := TopicStats{
		Topic: t.Name, Ephemeral: t.Ephemeral, Streams: t.Streams, Received: t.Received,
		Held: t.Held.Messages, HeldBytes: t.Held.Bytes, Window: t.Window.Messages, WindowBytes: t.Window.Bytes,
		Missing: t.Missing, Shortage: t.Shortage, Groups: make([]GroupStats, 0, len(t.Groups)),
	}
	for _, g := range t.Groups {
		group := GroupStats{
			Group: g.Name, Members: g.Members, Settled: g.Settled, Lag: g.Unsettled, InFlight: g.Unsettled - g.Backlog,
			OldestUnsettled: g.Oldest, WaitForKey: g.Waiting,
		}
		for _, k := range g.Keys {
			group.StuckKeys = append(group.StuckKeys, KeyStats{netio.Printable(k.Key), k.Waiting, k.Oldest})
		}
		stats.Groups = append(stats.Groups, group)
	}
	return stats
}
