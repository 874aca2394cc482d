package consume

import (
	"context"
	"math/rand/v2"
	"time"
)

// drain waits until handlers have ended, up to CloseTimeout, and what they handled is settled.
func (s *subscription) drain() {
	s.dropOffer()
	timeout := time.NewTimer(s.cfg.Settings.CloseTimeout)
	defer timeout.Stop()
	for s.running > 0 || len(s.handled) > 0 || s.busy {
		acked, nacked := s.answers()
		select {
		case <-acked:
			s.reap()
		case <-nacked:
			s.reap()
		case <-s.looking.C:
			s.look()
		case s.settler() <- s.handled:
			s.handled, s.busy = nil, true
		case e := <-s.events:
			s.apply(e)
		case <-timeout.C:
			return
		}
	}
}

// handBack settles what was handled at the last moment, gives back what was not, and closes the source.
func (s *subscription) handBack() {
	for { // what the ended goroutines reported before over was closed
		select {
		case e := <-s.events:
			s.apply(e)
			continue
		default:
		}
		break
	}
	for _, e := range s.emissions {
		s.answered(e)
		e.cancel()
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	s.handled = append(s.handled, s.unacked...)
	if len(s.handled) > 0 {
		if err := s.source.Settle(ctx, deliveriesOf(s.handled)); err != nil {
			s.logger.Error("Cannot ack messages at the end: they can come again", err, nil)
		}
	}
	for _, it := range s.handled {
		delete(s.held, it)
	}
	rest := s.late
	for it := range s.held {
		if it.again != nil {
			it.again.Stop()
		}
		if it.repeat != nil {
			it.delivery = *it.repeat
		}
		rest = append(rest, it.delivery)
	}
	if len(rest) > 0 {
		if err := s.source.Return(ctx, rest); err != nil {
			s.logger.Error("Cannot give messages back: others get them later", err, nil)
		}
	}
	if err := s.source.Close(); err != nil {
		s.logger.Error("Cannot close a subscription", err, nil)
	}
}

// backoff waits longer each time, from 100 ms to 5 s, less a random half.
type backoff struct{ last time.Duration }

func (b *backoff) wait(ctx context.Context) {
	b.last = min(max(2*b.last, 100*time.Millisecond), 5*time.Second)
	timer := time.NewTimer(b.last/2 + rand.N(b.last/2)) //nolint:gosec // it spreads load, it hides nothing
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
