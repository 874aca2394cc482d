// Package consume runs the subscriptions of engines with a server: what is in flight, order by key, redelivery,
// attempts, dead letters and a graceful end are the same with all of them, as they are here.
package consume

import (
	"context"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// Config is what a Subscriber needs.
type Config struct {
	Engine   string
	Broker   driver.Broker
	Settings driver.Settings
	// Explain gives an error of the Broker its cause.
	Explain func(error) error
	Logger  watermill.LoggerAdapter
	// DeadLetter publishes messages whose attempts are exhausted.
	DeadLetter message.Publisher
	// ErrClosed is the error of calls to a closed Subscriber.
	ErrClosed error
}

// Subscriber is a group's message.Subscriber.
type Subscriber struct {
	cfg     Config
	group   string
	closing chan struct{}

	mu     sync.Mutex
	closed bool
	subs   sync.WaitGroup // guarded by mu against an Add behind Wait
}

// NewSubscriber returns the subscriber of a group.
func NewSubscriber(cfg Config, group string) *Subscriber {
	return &Subscriber{cfg: cfg, group: group, closing: make(chan struct{})}
}

// SubscribeInitialize makes the topic, and the group of it: what is published from then on waits for the group.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	return s.cfg.Explain(s.cfg.Broker.Declare(context.Background(), topic, s.group))
}

// Subscribe begins a subscription. It lasts until ctx is done or the Subscriber is closed, then handlers may end for up
// to Settings.CloseTimeout, and the channel is closed.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, s.cfg.ErrClosed
	}
	s.subs.Add(1)
	s.mu.Unlock()
	source, err := s.cfg.Broker.Consume(ctx, topic, s.group)
	if err != nil {
		s.subs.Done()
		return nil, s.cfg.Explain(err)
	}
	sub := newSubscription(&s.cfg, topic, source)
	sub.unchanged = ctx.Value(unchangedKey{}) != nil
	// It ends with ctx or closing, and Close waits for it.
	go func() {
		defer s.subs.Done()
		sub.run(ctx, s.closing)
	}()
	return sub.out, nil
}

type unchangedKey struct{}

// Unchanged returns a context for subscriptions of a caller that promises to change no message, and not to use its
// context after the answer: such messages need no copies. Other Subscribers than those of this package take no notice
// of it.
func Unchanged(ctx context.Context) context.Context {
	return context.WithValue(ctx, unchangedKey{}, true)
}

// Close ends the subscriptions and waits for them.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	s.subs.Wait()
	return nil
}
