package buffstreams

import (
	"context"
	"fmt"
	"maps"
	"math"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// resolved is where a topic led when it was looked up last. It never changes.
type resolved struct {
	route   route.Route
	dynamic bool // another lookup can find something else
	groups  []*group
	targets []*target // of all groups, each once
}

// topicState is what a Publisher remembers of a topic.
type topicState struct {
	topic    string
	calls    atomic.Int32 // the Publish calls under way, or forgotten
	resolved atomic.Pointer[resolved]

	// Guarded by the Publisher's mu.
	former  []*target // of earlier routes; each holds messages that are not settled
	retired []*group  // that no group of the present route follows; their slots hold messages that are not settled
	lookup  *lookup   // under way, or nil
	refresh
}

// forgotten is the number of calls of a topicState that takes no more.
const forgotten = math.MinInt32 / 2

// enter begins a call, unless the state is forgotten.
func (s *topicState) enter() bool {
	if s.calls.Add(1) > 0 {
		return true
	}
	s.calls.Add(-1)
	return false
}

// forgetLocked makes the state take no more calls, unless something is under way. The caller must hold the Publisher's
// mu.
func (s *topicState) forgetLocked() bool {
	if !s.calls.CompareAndSwap(0, forgotten) {
		return false
	}
	if s.busyLocked() || s.lookup != nil {
		s.calls.Add(-forgotten)
		return false
	}
	return true
}

// busyLocked tells whether messages are not settled. The caller must hold the Publisher's mu.
func (s *topicState) busyLocked() bool {
	for _, t := range s.allLocked() {
		if t.unsettled() > 0 {
			return true
		}
	}
	return len(s.slotFlowsLocked()) > 0
}

// flowsLocked returns the streams of the topic. The caller must hold the Publisher's mu.
func (s *topicState) flowsLocked() (all []*routedStream) {
	for _, t := range s.allLocked() {
		all = append(all, t.flows()...)
	}
	return append(all, s.slotFlowsLocked()...)
}

// slotFlowsLocked returns the streams of all slots. The caller must hold the Publisher's mu.
func (s *topicState) slotFlowsLocked() (all []*routedStream) {
	groups := s.retired
	if r := s.resolved.Load(); r != nil {
		groups = append(groups[:len(groups):len(groups)], r.groups...)
	}
	for _, g := range groups {
		all = append(all, g.slots.all()...)
	}
	return all
}

// allLocked returns the targets of the present route and of earlier ones. The caller must hold the Publisher's mu.
func (s *topicState) allLocked() []*target {
	r := s.resolved.Load()
	if r == nil {
		return s.former
	}
	return append(s.former[:len(s.former):len(s.former)], r.targets...)
}

// awaitCalls waits for the end of all Publish calls. The Publisher must be closed. When ctx is done they wait for
// nothing any more but the user's code, which the error names if it has not returned.
func (p *Publisher) awaitCalls(ctx context.Context) error {
	done := ctx.Done()
	var grace <-chan time.Time
	for p.calling() > 0 {
		select {
		case <-p.idle:
		case <-done:
			done, grace = nil, time.After(failureGrace)
		case <-grace:
			return fmt.Errorf("buffstreams: PublisherConfig.Marshaler or Outbox has not returned within CloseTimeout: %d Publish calls are left", p.calling())
		}
	}
	return nil
}

// calling is the number of Publish calls that are under way.
func (p *Publisher) calling() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.topics {
		n += max(0, int64(s.calls.Load()))
	}
	return n
}

// state returns the state of a topic, and makes it where there is none. Now and then it forgets the topics for which
// nothing is under way.
func (p *Publisher) state(topic string) *topicState {
	p.mu.Lock()
	s := p.topics[topic]
	var left []*target
	if s == nil {
		if len(p.topics) >= p.prune {
			left = p.pruneLocked()
		}
		s = &topicState{topic: topic}
		p.topics[topic] = s
	}
	p.last.Store(s)
	p.mu.Unlock()
	p.leave(left)
	return s
}

// pruneLocked forgets the topics for which nothing is under way, and returns their targets. The caller must hold mu.
func (p *Publisher) pruneLocked() (left []*target) {
	maps.DeleteFunc(p.topics, func(_ string, s *topicState) bool {
		forgotten := s.forgetLocked()
		if forgotten {
			left = append(left, s.allLocked()...)
			s.endWatchLocked()
			delete(p.routed, s)
		}
		return forgotten
	})
	p.prune = 2*len(p.topics) + 64
	return left
}

// busy returns the streams for which messages are not settled, each once.
func (p *Publisher) busy() (busy []*routedStream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*routedStream
	for _, s := range p.topics {
		all = append(all, s.flowsLocked()...)
	}
	at := map[any]int{} // in busy
	for _, f := range all {
		if f.stream.Unsettled() == 0 {
			continue
		}
		id := any(f.stream)
		named, shared := f.stream.(*sender.Named)
		if shared {
			id = named.Of()
		}
		i, there := at[id]
		switch {
		case !there:
			at[id] = len(busy)
			busy = append(busy, f)
		case shared && named.LaterThan(busy[i].stream.(*sender.Named)): //nolint:forcetypeassert // as they have one id
			busy[i] = f
		}
	}
	return busy
}

// allSenders returns the senders of all targets, each once.
func (p *Publisher) allSenders() []*sender.Sender {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*sender.Sender, 0, len(p.senders))
	for s := range p.senders {
		all = append(all, s)
	}
	return all
}
