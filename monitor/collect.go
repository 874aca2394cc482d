package monitor

import (
	"maps"
	"slices"
	"time"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Version is that of the JSON form of Stats. It grows when a field changes its meaning or goes; fields may be added
// without that.
const Version = 1

// Stats is what /stats answers with. Source is the name in Config of what a row is of.
type Stats struct {
	Version       int            `json:"version"`
	At            time.Time      `json:"at"`
	Title         string         `json:"title"`
	UptimeSeconds float64        `json:"uptime_seconds"` // of the Monitor
	Ready         bool           `json:"ready"`
	NotReady      []string       `json:"not_ready"`
	Stuck         []Stuck        `json:"stuck"`     // the worst first
	Addresses     []Address      `json:"addresses"` // that messages are published to
	Listeners     []Listener     `json:"listeners"`
	Subscriptions []Subscription `json:"subscriptions"`
	Outboxes      []OutboxStats  `json:"outboxes"`
	Memory        []Memory       `json:"memory"`
	// LeftOff says how many rows the limit of the request left off, by the name of their list.
	LeftOff map[string]int `json:"left_off,omitempty"`
	Rates   Rates          `json:"rates"`
}

// Address is an address that messages are published to.
type Address struct {
	Source string `json:"source"`
	buffstreams.AddressStats
}

// Listener is an address that is listened at, with its topics, their groups, and its peers.
type Listener struct {
	Source string `json:"source"`
	buffstreams.ListenerStats
}

// Subscription is one of a Subscriber.
type Subscription struct {
	Source string `json:"source"`
	buffstreams.SubscriptionStats
}

// OutboxStats is an outbox.
type OutboxStats struct {
	Source string `json:"source"`
	store.OutboxStats
}

// Memory is what a Manager has taken of its budgets.
type Memory struct {
	Source string `json:"source"`
	buffstreams.MemoryStats
}

// snapshot is everything at one time. Nothing of it may be changed: others may have the same slices.
type snapshot struct {
	at            time.Time
	notReady      []string
	addresses     []Address
	topics        []published // of publishers, whose lookups fail
	listeners     []Listener
	subscriptions []Subscription
	outboxes      []OutboxStats
	memory        []Memory
}

// published is a topic of a publisher.
type published struct {
	source string
	buffstreams.PublisherTopicStats
}

// sorted goes through a map in the order of its names.
func sorted[T any](all map[string]T, f func(name string, value T)) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f(name, all[name])
	}
}

// gather asks everything for its Stats. Addresses and listeners of publishers and subscribers are left out where a
// Manager that is shown has the same.
func (m *Monitor) gather() snapshot {
	s := snapshot{at: time.Now()}
	known := map[string][]*buffstreams.AddressStats{} // by address
	why := func(kind, name string, reasons []string) {
		for _, reason := range reasons {
			s.notReady = append(s.notReady, kind+" "+name+": "+reason)
		}
	}
	sorted(m.cfg.Managers, func(name string, manager *buffstreams.Manager) {
		stats := manager.Stats()
		why("manager", name, stats.NotReady)
		for i := range stats.Addresses {
			a := &stats.Addresses[i]
			s.addresses = append(s.addresses, Address{name, *a})
			known[a.Address] = append(known[a.Address], a)
		}
		for i := range stats.Listeners {
			s.listeners = append(s.listeners, Listener{name, stats.Listeners[i]})
		}
		s.memory = append(s.memory, Memory{name, stats.Memory})
	})
	sorted(m.cfg.Publishers, func(name string, p *buffstreams.Publisher) {
		stats := p.Stats()
		why("publisher", name, stats.NotReady)
		for i := range stats.Addresses {
			a := &stats.Addresses[i]
			if !slices.ContainsFunc(known[a.Address], func(b *buffstreams.AddressStats) bool { return sameAddress(a, b) }) {
				s.addresses = append(s.addresses, Address{name, *a})
				known[a.Address] = append(known[a.Address], a)
			}
		}
		for _, t := range stats.Topics {
			if t.LookupError != "" {
				s.topics = append(s.topics, published{name, t})
			}
		}
		if stats.Outbox != nil {
			s.addOutbox(name, *stats.Outbox)
		}
	})
	sorted(m.cfg.Subscribers, func(name string, sub *buffstreams.Subscriber) {
		stats := sub.Stats()
		why("subscriber", name, stats.NotReady)
		for i := range stats.Listeners {
			l := &stats.Listeners[i]
			if !slices.ContainsFunc(s.listeners, func(k Listener) bool { return k.Bound == l.Bound }) {
				s.listeners = append(s.listeners, Listener{name, *l})
			}
		}
		for _, one := range stats.Subscriptions {
			s.subscriptions = append(s.subscriptions, Subscription{name, one})
		}
	})
	sorted(m.cfg.Outboxes, func(name string, o Outbox) {
		stats := o.Stats()
		if len(stats.NotReady) == 0 && stats.Err != "" {
			stats.NotReady = []string{stats.Err}
		}
		why("outbox", name, stats.NotReady)
		s.addOutbox(name, stats)
	})
	slices.Sort(s.notReady)
	s.notReady = slices.Compact(s.notReady)
	return s
}

// sameAddress tells one state that was looked at twice from those of two Managers that dial the same address.
func sameAddress(a, b *buffstreams.AddressStats) bool {
	return a.Since.Equal(b.Since) || a.Connects == b.Connects && a.Failures == b.Failures
}

// addOutbox adds an outbox unless it is there: publishers may share one.
func (s *snapshot) addOutbox(name string, o store.OutboxStats) {
	if !slices.ContainsFunc(s.outboxes, func(p OutboxStats) bool { return p.Name == o.Name }) {
		s.outboxes = append(s.outboxes, OutboxStats{name, o})
	}
}

// counters are what rates are made of. Keys are addresses, so that none counts twice.
func (s snapshot) counters() map[string]counters {
	all := map[string]counters{}
	for i := range s.addresses {
		a := &s.addresses[i]
		key := "to " + a.Source + " " + a.Address
		all[key] = counters{sent: a.Sent, settled: a.Settled}
	}
	for i := range s.listeners {
		l := &s.listeners[i]
		c := counters{received: l.Received}
		for j := range l.Topics {
			for _, g := range l.Topics[j].Groups {
				c.handled += g.Settled
			}
		}
		all["at "+l.Source+" "+l.Bound] = c
	}
	return all
}

// collect is what /stats shows, with up to limit rows in each list.
func (m *Monitor) collect(limit int) Stats {
	s := m.gather()
	out := Stats{
		Version: Version, At: s.at, Title: m.cfg.Title, UptimeSeconds: s.at.Sub(m.began).Seconds(),
		Ready: len(s.notReady) == 0, NotReady: list(s.notReady), Stuck: list(m.stuck(s)),
		Addresses: list(s.addresses), Listeners: list(s.listeners), Subscriptions: list(s.subscriptions), Outboxes: list(s.outboxes),
		LeftOff: map[string]int{}, Memory: list(s.memory), Rates: m.history.rates(),
	}
	out.trim(limit)
	return out
}
