package buffstreams

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// Stats describes the Subscriber. It makes nothing and opens no listener. Calls within a second share a result, which
// must not be changed.
func (s *Subscriber) Stats() SubscriberStats { return s.stats.get(s.collectStats) }

func (s *Subscriber) collectStats(now time.Time) SubscriberStats {
	stats := SubscriberStats{Version: StatsVersion, At: now, NotReady: s.notReady(), Subscriptions: []SubscriptionStats{}}
	at := map[netio.Target]bool{}
	for _, sub := range s.subscriptions() {
		if d, err := s.destination(sub.topic); err == nil {
			at[d.target] = true
		}
		stats.Subscriptions = append(stats.Subscriptions, sub.stats())
	}
	stats.Listeners = s.manager.listenerStats(at)
	slices.SortFunc(stats.Subscriptions, func(a, b SubscriptionStats) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), a.OldestInFlight.Compare(b.OldestInFlight))
	})
	return stats
}

func (s *Subscriber) subscriptions() []*subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.subs))
}

func (s *subscription) stats() SubscriptionStats {
	return SubscriptionStats{
		Topic: s.topic, Group: s.subscriber.cfg.ConsumerGroup, MaxInFlight: s.subscriber.cfg.MaxInFlight,
		Offered: len(s.out), Slow: int(s.watched.Load()), OldestInFlight: s.member.Oldest(),
		Redelivered: s.redelivered.Load(), DeadLettered: s.deadLettered.Load(),
	}
}
