package buffstreams

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// drainPoll is how often a subscription that drains looks whether a sender has left meanwhile, or others have drained.
const drainPoll = 5 * time.Millisecond

// drain emits what no connected sender keeps, after the subscription was cancelled. It ends when nothing is left to be
// handled, of this subscription and of all others of the Manager that were cancelled; when a member of the group can
// take over; or when the time is over or the listener gone. What senders keep, and no handler has, is given back.
func (p *pump) drain() {
	if !p.drains {
		return
	}
	p.draining = true
	p.inStore(p.member.BeginDrain) // before it looks for others: of two that are cancelled, each would leave all to the other
	if p.member.HasSuccessor() {
		return
	}
	p.giveBackKept()
	poll := time.AfterFunc(drainPoll, p.notify)
	defer poll.Stop()
	for !isClosed(p.base.Done()) && !isClosed(p.listener.Done()) && !p.member.HasSuccessor() {
		p.reap()
		p.fill()
		if p.drained.Store(p.isIdle()); p.drained.Load() && p.subscriber.manager.drained() {
			return
		}
		poll.Reset(drainPoll)
		p.wait()
	}
}

// isIdle reports whether no message has been taken that has not been settled or given back.
func (p *pump) isIdle() bool {
	return len(p.inFlight) == 0 && len(p.acked) == 0 && p.watched.Load() == 0
}

// giveBackKept gives back what senders keep.
func (p *pump) giveBackKept() {
	var back []dispatch.Delivery
	offered := p.inFlight[max(0, len(p.inFlight)-len(p.out)):]
	if slices.ContainsFunc(offered, func(f flight) bool { return !f.ctx.delivery.Unkept() }) {
		back = p.takeBack() // all, as their order must not change
	}
	kept := p.takeKeptRedeliveries()
	p.watched.Add(-int32(len(kept)))
	if back = append(back, kept...); len(back) > 0 {
		p.giveBack(back...)
	}
}

// stop gives back what no handler has, and leaves the rest to watchers. It calls the DedupeStore once: each call may
// take closeGrace.
func (p *pump) stop() {
	back := append(p.takeBack(), p.endRedeliveries()...)
	if p.decoding.busy { // the pump was taken over
		back = append(back, p.decoding.delivery)
	}
	for _, f := range p.inFlight {
		if !p.reapOne(f) {
			p.startWatcher(f)
		}
	}
	acked := p.acked
	p.inFlight, p.acked = nil, nil
	p.inStore(func() {
		p.member.StopTaking() // handlers may run on for a while, and siblings must not wait for that
		p.member.Return(back...)
		p.member.SettleAll(acked)
	})
}

// outlastsClose reports whether a message that was nacked, or whose dead letter was not published, is tried again
// though the subscription was cancelled.
func (s *subscription) outlastsClose(d *dispatch.Delivery) bool { return s.drains && d.Unkept() }

// awaitOthers waits until no other subscription of the Manager that was cancelled still drains, or the time is over:
// with the first channel that is closed a Router closes the publishers that the handlers of all share.
func (s *subscription) awaitOthers() {
	s.drained.Store(true)
	if s.drains {
		poll(s.base, s.subscriber.manager.subscriptions.drained)
	}
}

// syncAcks waits until the acks of the subscription were written: a program may end when its channel is closed.
func (s *subscription) syncAcks() {
	ctx, cancel := context.WithTimeout(context.Background(), max(time.Until(s.deadline), closeGrace))
	defer cancel()
	s.listener.SyncAcks(ctx, s.member.Topic())
}

// subscriptions are those of a Manager that have not ended.
type subscriptions struct {
	mu  sync.Mutex
	all map[*subscription]struct{}
}

func (s *subscriptions) add(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*subscription]struct{}{}
	}
	s.all[sub] = struct{}{}
}

func (s *subscriptions) remove(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, sub)
}

// expire ends those at a listener at once: handlers that run have had their time, and what they have goes back.
func (s *subscriptions) expire(l listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.all {
		if sub.listener == l {
			sub.expire()
		}
	}
}

// drained reports whether none that was cancelled still drains.
func (s *subscriptions) drained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sub := range s.all {
		if sub.isCancelled() && !sub.drained.Load() {
			return false
		}
	}
	return true
}

// drained reports whether no subscription that was cancelled may have something to do yet: while the Manager closes,
// its senders leave, and what they kept is to be handled.
func (m *Manager) drained() bool {
	return !m.isClosed() && m.subscriptions.drained()
}

// isClosed reports whether Close has begun.
func (m *Manager) isClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closed
}
