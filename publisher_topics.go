package buffstreams

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// target is the far end of a stream: where messages of a topic go to.
type target struct {
	topic  string
	sender *sender.Sender // nil with an outbox
	peer   string
	name   string // of the topic on the wire
	stream string // what the sender has its messages under
}

// unreceived is the number of messages that the peer is not known to have.
func (t *target) unreceived() int {
	if t.sender == nil {
		return 0
	}
	return t.sender.Unreceived(t.stream)
}

// resolved is where a topic led when it was looked up last. It never changes.
type resolved struct {
	asks    bool // the Resolver has to be asked each time
	route   route.Route
	targets []*target
}

// topicState is what a Publisher remembers of a topic.
type topicState struct {
	topic    string
	calls    atomic.Int32 // the Publish calls under way, or forgotten
	resolved atomic.Pointer[resolved]

	// Guarded by the Publisher's mu.
	former []*target // of earlier routes
	lookup *lookup   // under way, or nil
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

// forgetLocked makes the state take no more calls, unless something is under way. The caller must hold the Publisher's mu.
func (s *topicState) forgetLocked() bool {
	if !s.calls.CompareAndSwap(0, forgotten) {
		return false
	}
	if len(s.busyLocked()) > 0 {
		s.calls.Add(-forgotten)
		return false
	}
	return true
}

// busyLocked returns the targets for which messages are not settled. The caller must hold the Publisher's mu.
func (s *topicState) busyLocked() (busy []*target) {
	all := s.former
	if r := s.resolved.Load(); r != nil {
		all = append(all[:len(all):len(all)], r.targets...)
	}
	for _, t := range all {
		if t.unsettled() > 0 {
			busy = append(busy, t)
		}
	}
	return busy
}

// unsettled is the number of messages that are not settled.
func (t *target) unsettled() int {
	if t.sender == nil {
		return 0
	}
	return t.sender.Unsettled(t.stream)
}

// begin begins a Publish call and returns the topic's state. Most publishers have one topic, and find it without the mutex.
func (p *Publisher) begin(topic string) (*topicState, error) {
	for {
		s := p.last.Load()
		if s == nil || s.topic != topic {
			s = p.state(topic)
		}
		switch {
		case !s.enter(): // it is being forgotten
			p.last.CompareAndSwap(s, nil)
		case p.closed.Load(): // Close looks at the state after it has closed
			p.end(s)
			return nil, ErrPublisherClosed
		default:
			return s, nil
		}
	}
}

// end ends what begin began.
func (p *Publisher) end(s *topicState) {
	if s.calls.Add(-1) == 0 && p.closed.Load() {
		select {
		case p.idle <- struct{}{}:
		default:
		}
	}
}

// awaitCalls waits for the end of all Publish calls. The Publisher must be closed. When ctx is done they wait for nothing any
// more but the user's code, which the error names if it has not returned.
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

// state returns the state of a topic, and makes it where there is none. Now and then it forgets the topics for which nothing
// is under way.
func (p *Publisher) state(topic string) *topicState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.topics[topic]
	if s == nil {
		if len(p.topics) >= p.prune {
			maps.DeleteFunc(p.topics, func(_ string, s *topicState) bool { return s.forgetLocked() })
			p.prune = 2*len(p.topics) + 64
		}
		s = &topicState{topic: topic}
		p.topics[topic] = s
	}
	p.last.Store(s)
	return s
}

// busy returns the targets for which messages are not settled, each once.
func (p *Publisher) busy() (busy []*target) {
	type stream struct {
		sender *sender.Sender
		name   string
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[stream]bool{}
	for _, s := range p.topics {
		for _, t := range s.busyLocked() {
			if key := (stream{t.sender, t.stream}); !seen[key] {
				seen[key] = true
				busy = append(busy, t)
			}
		}
	}
	return busy
}

// resolve returns where a topic leads now, and what is left of PublishTimeout.
func (p *Publisher) resolve(s *topicState) (r *resolved, timeout time.Duration, err error) {
	timeout = max(0, p.cfg.PublishTimeout) // negative is no bound
	last := s.resolved.Load()
	if last != nil && !last.asks {
		return last, timeout, nil
	}
	if last == nil {
		d, ok, err := parseTopic(s.topic, p.cfg.Resolver != nil)
		if err != nil {
			return nil, 0, err
		}
		if ok {
			r, err = p.resolveAddress(s, d)
			return r, timeout, err
		}
	}
	began := time.Now()
	found, err := p.lookUp(s)
	if timeout > 0 {
		timeout = max(time.Nanosecond, timeout-time.Since(began))
	}
	if err != nil || last != nil && last.route.Equal(found) {
		return last, timeout, err
	}
	_, fixed := p.cfg.Resolver.(route.Static)
	next := &resolved{asks: !fixed, route: found}
	next.route.Addresses = slices.Clone(found.Addresses) // the Resolver may write to its own
	if next.targets, err = p.targets(s.topic, found); err != nil {
		return nil, 0, err
	}
	p.adopt(s, next)
	return next, timeout, nil
}

// resolveAddress is resolve for a topic that names its address.
func (p *Publisher) resolveAddress(s *topicState, d destination) (*resolved, error) {
	t, err := p.target(s.topic, d)
	if err != nil {
		return nil, err
	}
	next := &resolved{targets: []*target{t}}
	p.adopt(s, next)
	return next, nil
}

// adopt makes next the topic's route. Flush and Close go on to look at the targets of the one before.
func (p *Publisher) adopt(s *topicState, next *resolved) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.former = s.busyLocked()
	s.resolved.Store(next)
	for _, t := range next.targets {
		if t.sender == nil || p.senders[t.sender] {
			continue
		}
		p.senders[t.sender] = true
		if p.cfg.OnFailure != nil || p.cfg.Ephemeral {
			t.sender.OnRefused(p, func(r session.Refused) { p.onRefused(t.peer, r) })
		}
	}
}

// targets returns the targets of a route, in the order of its addresses.
func (p *Publisher) targets(topic string, r route.Route) ([]*target, error) {
	name := r.Name
	if name == "" {
		name = topic
	}
	targets := make([]*target, len(r.Addresses))
	for i, text := range r.Addresses {
		address, err := parseAddress(text)
		if err != nil {
			return nil, err
		}
		if targets[i], err = p.target(topic, destination{address, name}); err != nil {
			return nil, err
		}
	}
	return targets, nil
}

// target returns the target at an address.
func (p *Publisher) target(topic string, d destination) (*target, error) {
	if err := checkName(d.name); err != nil {
		return nil, err
	}
	if p.relay != nil {
		return &target{topic: topic, peer: formatAddress(d.target), name: d.name}, nil
	}
	s, err := p.manager.sender(d.target)
	if err != nil {
		return nil, err
	}
	t := &target{topic: topic, sender: s, peer: d.target.Address, name: d.name, stream: d.name}
	if p.cfg.Ephemeral {
		t.stream = session.Ephemeral(d.name)
	}
	return t, nil
}
