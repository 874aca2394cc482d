package receiver

import (
	"cmp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// Stats describes a Receiver at one moment.
type Stats struct {
	Draining   bool
	Held       bool // new topics give no credit yet
	Peers      []PeerStats
	Publishers int // that are remembered
	Topics     []TopicStats
	Received   uint64 // messages, without those that were dropped as duplicates
	Duplicates uint64 // messages that were dropped
	Rejected   uint64 // messages that were refused for good
}

// PeerStats describes a connection that was welcomed.
type PeerStats struct {
	Address   string // cut and quoted where the peer has chosen it
	Principal string
	Agent     string
	Since     time.Time
	Streams   int // that are attached to it
}

// TopicStats is a topic with the number of its streams.
type TopicStats struct {
	dispatch.Stats
	Streams int
}

// counters count messages.
type counters struct{ received, duplicates, rejected atomic.Uint64 }

// Stats describes the Receiver. Topics and peers are in the order of their names.
func (r *Receiver) Stats() Stats {
	s, topics, conns, streams := r.parts()
	for i, t := range topics {
		s.Topics = append(s.Topics, TopicStats{t.Stats(), streams[i]})
	}
	for _, c := range conns {
		if p, ok := c.stats(); ok {
			s.Peers = append(s.Peers, p)
		}
	}
	slices.SortFunc(s.Topics, func(a, b TopicStats) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Peers, func(a, b PeerStats) int {
		return cmp.Or(strings.Compare(a.Address, b.Address), a.Since.Compare(b.Since))
	})
	return s
}

// parts returns what Stats looks at, one after another, without the Receiver's lock.
func (r *Receiver) parts() (s Stats, topics []*dispatch.Topic, conns []*conn, streams []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s = Stats{
		Draining: r.draining, Held: r.held, Publishers: len(r.publishers),
		Received: r.counters.received.Load(), Duplicates: r.counters.duplicates.Load(), Rejected: r.counters.rejected.Load(),
	}
	for _, t := range r.topics {
		topics, streams = append(topics, t), append(streams, len(r.streams[t]))
	}
	for c := range r.conns {
		conns = append(conns, c)
	}
	return s, topics, conns, streams
}

// stats describes a connection. ok is false for one that was not welcomed.
func (c *conn) stats() (s PeerStats, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return PeerStats{
		Address: netio.PeerText(c.nc.RemoteAddr()), Principal: c.welcomedAs, Agent: c.agent, Since: c.since,
		Streams: int(c.attached.Load()),
	}, c.welcomed
}

// Missing reports whether the Receiver drains, and the declared groups that do not exist yet, by topic.
func (r *Receiver) Missing() (draining bool, missing map[string][]string) {
	r.mu.Lock()
	draining = r.draining
	r.mu.Unlock()
	missing = map[string][]string{}
	for name := range r.cfg.Groups {
		r.mu.Lock()
		t := r.topics[name]
		r.mu.Unlock()
		groups := r.cfg.Groups[name]
		if t != nil {
			groups = t.Missing()
		}
		if len(groups) > 0 {
			missing[name] = groups
		}
	}
	return draining, missing
}
