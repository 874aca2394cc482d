package buffstreams

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Stats describes the Publisher. It makes nothing, dials nothing and asks no Resolver. Calls within a second share a
// result, which must not be changed.
func (p *Publisher) Stats() PublisherStats { return p.stats.get(p.collectStats) }

func (p *Publisher) collectStats(now time.Time) PublisherStats {
	return PublisherStats{
		Version: StatsVersion, At: now, NotReady: p.notReady(), Addresses: p.manager.addressStats(p.sendersByTarget(), p.plainTargets()),
		Topics: p.topicStats(), Outbox: outboxStats(p.cfg.Outbox), Dropped: p.dropped.Load(),
	}
}

// sendersByTarget returns the senders that the Publisher has used. With an Outbox these are all of its destinations.
func (p *Publisher) sendersByTarget() map[netio.Target]*sender.Sender {
	used := p.manager.senders()
	if p.relay != nil {
		destinations := map[netio.Target]bool{}
		for _, s := range p.cfg.Outbox.Streams() {
			if t, err := parseAddress(s.Key.Destination); err == nil {
				destinations[t] = true
			}
		}
		maps.DeleteFunc(used, func(t netio.Target, _ *sender.Sender) bool { return !destinations[t] })
		return used
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(used, func(_ netio.Target, s *sender.Sender) bool { return p.senders[s] == 0 })
	return used
}

// plainTargets returns the plain peers that the Publisher's topics lead to; none on the acked wire.
func (p *Publisher) plainTargets() map[netio.Target]bool {
	if p.plain == nil {
		return map[netio.Target]bool{}
	}
	p.plain.mu.Lock()
	defer p.plain.mu.Unlock()
	at := make(map[netio.Target]bool, len(p.plain.used))
	for t := range p.plain.used {
		at[t] = true
	}
	return at
}

// topicStats describes the topics, in the order of their names.
func (p *Publisher) topicStats() []PublisherTopicStats {
	type topic struct {
		*topicState
		at    refresh
		flows []*routedStream
	}
	p.mu.Lock()
	topics := make([]topic, 0, len(p.topics))
	for _, s := range p.topics {
		topics = append(topics, topic{s, s.refresh, s.flowsLocked()})
	}
	p.mu.Unlock()
	all := make([]PublisherTopicStats, 0, len(topics))
	for i := range topics {
		s := &topics[i]
		t := PublisherTopicStats{Topic: s.topic, Addresses: []string{}, Calls: max(0, int(s.calls.Load()))}
		if err := s.at.failed; err != nil {
			t.LookupError, t.LookupFailing = netio.Sanitize(err).Error(), s.at.failing
		}
		for _, f := range s.flows {
			t.Pending += f.stream.Unsettled()
		}
		if r := s.resolved.Load(); r != nil {
			for _, target := range r.targets {
				t.Addresses = append(t.Addresses, target.peer)
			}
			for _, g := range r.groups {
				t.GroupsDiffer = t.GroupsDiffer || g.groupsDiffer()
			}
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b PublisherTopicStats) int { return strings.Compare(a.Topic, b.Topic) })
	return all
}

// outboxStats returns what an Outbox says of itself; nil: nothing.
func outboxStats(o store.Outbox) *store.OutboxStats {
	if g, ok := o.(*guardedOutbox); ok {
		o = g.user
	}
	teller, ok := o.(interface{ Stats() store.OutboxStats })
	if !ok {
		return nil
	}
	var stats store.OutboxStats
	if hook.Call(nameOutbox, func() error { stats = teller.Stats(); return nil }) != nil {
		return nil
	}
	return &stats
}
