package dispatch

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// maxStuckKeys is how many keys Stats names for each group.
const maxStuckKeys = 10

// Stats describes a topic at one moment.
type Stats struct {
	Name         string
	Ephemeral    bool
	Received     uint64      // messages since the topic was made
	Held, Window flow.Amount // what the window has given out, and its size
	Missing      []string    // declared groups that do not exist yet
	Shortage     string      // why publishers get no room; empty: none waits for it
	Groups       []GroupStats
}

// GroupStats describes a group at one moment.
type GroupStats struct {
	Name      string // empty for a subscription without a group
	Members   int
	Settled   uint64    // messages since the group was made
	Unsettled int       // messages that it has not settled
	Backlog   int       // of these, those that no member has
	Oldest    time.Time // when the oldest message that is not settled was received; zero: there is none
	Waiting   int       // messages that wait for their key
	Keys      []KeyStats
}

// KeyStats describes a key for which messages wait.
type KeyStats struct {
	Key     string
	Waiting int
	Oldest  time.Time // when the first of those that wait was received
}

// Stats describes the topic.
func (t *Topic) Stats() Stats {
	s := t.stats()
	s.Held, s.Window = t.window.Held(), t.window.Size()
	if t.window.Shortage() != flow.NoShortage {
		s.Shortage = t.Shortage()
	}
	return s
}

func (t *Topic) stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Stats{
		Name: t.name, Ephemeral: t.ephemeral, Received: t.pos, Missing: slices.Sorted(maps.Keys(t.declared)),
		Groups: make([]GroupStats, 0, len(t.groups)),
	}
	for _, g := range t.groups {
		s.Groups = append(s.Groups, g.stats())
	}
	return s
}

// stats describes the group. The caller must hold the topic's mu.
func (g *group) stats() GroupStats {
	unsettled := max(0, int(g.unsettled.Load()))
	s := GroupStats{
		Name: g.name, Members: len(g.members), Settled: g.topic.pos - g.from - min(uint64(unsettled), g.topic.pos-g.from),
		Unsettled: unsettled, Backlog: min(unsettled, g.backlog()),
	}
	if unsettled > 0 {
		s.Oldest = g.oldest()
	}
	for _, q := range g.keys {
		if n := len(q.waiting); n > 0 {
			s.Waiting += n
			s.Keys = append(s.Keys, KeyStats{Key: q.name, Waiting: n, Oldest: q.waiting[0].Received()})
		}
	}
	slices.SortFunc(s.Keys, func(a, b KeyStats) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(a.Key, b.Key))
	})
	s.Keys = slices.Clip(s.Keys[:min(len(s.Keys), maxStuckKeys)])
	return s
}

// oldest is when the oldest message that the group has not settled was received.
func (g *group) oldest() (oldest time.Time) {
	older := func(at time.Time) {
		if !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
			oldest = at
		}
	}
	first := func(ds []Delivery) {
		if len(ds) > 0 {
			older(ds[0].Received())
		}
	}
	if g.cursor.run != nil {
		older(g.cursor.run.at)
	}
	first(g.returned)
	for _, q := range g.keys {
		first(q.waiting)
	}
	for _, m := range g.members {
		first(m.handed)
		older(m.Oldest())
	}
	if len(g.early) > 0 {
		older(g.early[0].Received())
	}
	return oldest
}

// NoteFirst says which delivery is the first of those that the member has at hand; nil: it has none.
func (m *Member) NoteFirst(d *Delivery) {
	at := int64(0)
	if d != nil {
		at = d.run.at.UnixNano()
	}
	if m.first.Load() != at { // most are of the same run as the one before
		m.first.Store(at)
	}
}

// Keep notes that the member has a delivery that takes longer, besides those at hand, until Dismiss.
func (m *Member) Keep(d *Delivery) {
	m.keptMu.Lock()
	defer m.keptMu.Unlock()
	if m.kept == nil {
		m.kept = map[time.Time]int{}
	}
	m.kept[d.run.at]++
}

// Dismiss undoes Keep.
func (m *Member) Dismiss(d *Delivery) {
	m.keptMu.Lock()
	defer m.keptMu.Unlock()
	if m.kept[d.run.at]--; m.kept[d.run.at] <= 0 {
		delete(m.kept, d.run.at)
	}
}

// Oldest is when the oldest message that the member has was received; zero: it has none.
func (m *Member) Oldest() (oldest time.Time) {
	if at := m.first.Load(); at != 0 {
		oldest = time.Unix(0, at)
	}
	m.keptMu.Lock()
	defer m.keptMu.Unlock()
	for at := range m.kept {
		if oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	return oldest
}

// Missing returns the declared groups that do not exist yet.
func (t *Topic) Missing() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Sorted(maps.Keys(t.declared))
}
