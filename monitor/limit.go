package monitor

import (
	"cmp"
	"slices"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// trim leaves off what is beyond limit rows of each list, the most troubled first. Lists within rows count together:
// those of all listeners, addresses and outboxes have limit rows.
func (s *Stats) trim(limit int) {
	s.NotReady = cut(s.LeftOff, "not_ready", s.NotReady, limit, nil)
	s.Stuck = cut(s.LeftOff, "stuck", s.Stuck, limit, nil)
	s.Addresses = cut(s.LeftOff, "addresses", s.Addresses, limit, func(a, b Address) int {
		return cmp.Or(-cmp.Compare(trouble(a.State), trouble(b.State)), -cmp.Compare(a.Pending, b.Pending))
	})
	streams := budget{limit, len(s.Addresses)}
	for i := range s.Addresses {
		a := &s.Addresses[i]
		a.Streams = cut(s.LeftOff, "streams", list(a.Streams), streams.next(len(a.Streams)), func(a, b buffstreams.StreamStats) int {
			return cmp.Or(-cmp.Compare(a.Waiting, b.Waiting), -cmp.Compare(a.Pending, b.Pending))
		})
	}
	s.Subscriptions = cut(s.LeftOff, "subscriptions", s.Subscriptions, limit, func(a, b Subscription) int {
		return -cmp.Compare(a.Slow, b.Slow)
	})
	s.Listeners = cut(s.LeftOff, "listeners", s.Listeners, limit, nil)
	topics, peers := budget{limit, len(s.Listeners)}, budget{limit, len(s.Listeners)}
	for i := range s.Listeners {
		l := &s.Listeners[i]
		l.Topics = cut(s.LeftOff, "topics", list(l.Topics), topics.next(len(l.Topics)), func(a, b buffstreams.TopicStats) int {
			return -cmp.Compare(lag(a), lag(b))
		})
		l.Peers = cut(s.LeftOff, "peers", list(l.Peers), peers.next(len(l.Peers)), nil)
	}
	s.Outboxes = cut(s.LeftOff, "outboxes", s.Outboxes, limit, nil)
	destinations := budget{limit, len(s.Outboxes)}
	for i := range s.Outboxes {
		o := &s.Outboxes[i]
		o.Destinations = cut(s.LeftOff, "destinations", list(o.Destinations), destinations.next(len(o.Destinations)), func(a, b store.DestinationStats) int {
			return -cmp.Compare(a.Pending, b.Pending)
		})
		stored := budget{limit, len(o.Destinations)}
		for j := range o.Destinations {
			d := &o.Destinations[j]
			d.Topics = cut(s.LeftOff, "outbox_topics", list(d.Topics), stored.next(len(d.Topics)), func(a, b store.OutboxTopicStats) int {
				return -cmp.Compare(a.Pending, b.Pending)
			})
		}
	}
}

// list is [] in JSON where it is empty, and a copy, as the caller sorts and cuts it.
func list[T any](all []T) []T { return append([]T{}, all...) }

// budget shares out rows among lists that are shown as one, such as the topics of all listeners.
type budget struct{ rows, lists int }

// next is how many rows the next list gets, of those that it has: its share, and what the lists before it have left
// over.
func (b *budget) next(has int) int {
	share := max(1, b.rows/b.lists)
	b.rows, b.lists = b.rows-min(share, has), b.lists-1
	return share
}

// cut keeps limit rows, the worst by order, in the order in which they stood.
func cut[T any](leftOff map[string]int, name string, all []T, limit int, order func(a, b T) int) []T {
	if len(all) <= limit {
		return all
	}
	leftOff[name] += len(all) - limit
	if order == nil {
		return all[:limit]
	}
	positions := make([]int, len(all))
	for i := range positions {
		positions[i] = i
	}
	slices.SortStableFunc(positions, func(i, j int) int { return order(all[i], all[j]) })
	positions = positions[:limit]
	slices.Sort(positions)
	kept := make([]T, 0, limit)
	for _, i := range positions {
		kept = append(kept, all[i])
	}
	return kept
}

// trouble orders states.
func trouble(state string) int {
	known := []string{"idle", "ready", "connecting", "draining", "gone", "failed", "silent"}
	if i := slices.Index(known, state); i >= 0 {
		return i
	}
	return len(known)
}

// lag is that of a topic's worst group.
func lag(t buffstreams.TopicStats) (most int) {
	for _, g := range t.Groups {
		most = max(most, g.Lag)
	}
	return most
}
