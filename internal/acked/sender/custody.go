package sender

import (
	"context"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// condition is what a caller waits for. The Sender's mu guards it.
type condition struct {
	met  func() bool   // called with mu held
	done chan struct{} // closed when it is met, or err says why it is not waited for any longer
	err  error
}

// Publisher is the id by which receivers know the Sender, apart from streams that have an identity of their own.
func (s *Sender) Publisher() [16]byte { return s.cfg.Identity.Publisher }

// Undelivered is the number of messages for a topic that no receiver is known to hold now: see
// session.Client.Undelivered.
func (s *Sender) Undelivered(topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.undeliveredLocked(topic)
}

func (s *Sender) undeliveredLocked(topic string) int {
	if o := s.client.Find(topic); o != nil {
		return s.client.Undelivered(o)
	}
	return 0
}

// Unsettled is the number of messages for a topic that are not settled.
func (s *Sender) Unsettled(topic string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.client.Find(topic); o != nil {
		return o.Pending()
	}
	return 0
}

// Flush waits until a receiver holds every message that was enqueued for a topic so far, or ctx is done.
func (s *Sender) Flush(ctx context.Context, topic string) error {
	return s.awaitStream(ctx, topic, s.client.Delivered)
}

// Drain waits until every message that was enqueued for a topic so far is settled, or ctx is done.
func (s *Sender) Drain(ctx context.Context, topic string) error {
	return s.awaitStream(ctx, topic, s.client.Settled)
}

// awaitStream waits until the messages that a topic's stream has now are far enough.
func (s *Sender) awaitStream(ctx context.Context, topic string, enough func(o *session.Outbound, last uint64) bool) error {
	s.mu.Lock()
	o := s.client.Find(topic)
	if o == nil {
		s.mu.Unlock()
		return nil
	}
	last := o.Last()
	s.mu.Unlock()
	return s.awaitCondition(ctx, func() bool { return enough(o, last) })
}

// FlushAll is Flush for all topics.
func (s *Sender) FlushAll(ctx context.Context) error {
	return s.awaitCondition(ctx, s.client.AllDelivered)
}

// AllDelivered tells whether a receiver holds every message, or the Sender is closed.
func (s *Sender) AllDelivered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed || s.client.AllDelivered()
}

// awaitCondition waits until a condition is met. It looks whenever the connection or what is known of the messages may
// have changed.
func (s *Sender) awaitCondition(ctx context.Context, met func() bool) error {
	s.mu.Lock()
	if met() {
		s.mu.Unlock()
		return nil
	}
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	c := &condition{met: met, done: make(chan struct{})}
	s.conditions = append(s.conditions, c)
	s.mu.Unlock()
	s.kick()
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conditions = slices.DeleteFunc(s.conditions, func(other *condition) bool { return other == c })
	if s.unreachable != nil {
		return s.unreachable
	}
	return ctx.Err()
}

// checkLocked ends the waits whose condition is met. The caller must hold mu.
func (s *Sender) checkLocked() {
	if len(s.conditions) == 0 {
		return
	}
	s.conditions = slices.DeleteFunc(s.conditions, func(c *condition) bool {
		met := c.met()
		if met {
			close(c.done)
		}
		return met
	})
}

// giveUpLocked ends all waits with an error. The caller must hold mu.
func (s *Sender) giveUpLocked(err error) {
	for _, c := range s.conditions {
		c.err = err
		close(c.done)
	}
	s.conditions = nil
}
