package buffstreams

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// Subscriber listens at address topics, and for logical topics at its ListenAddress. It is safe for concurrent use.
type Subscriber struct {
	cfg     SubscriberConfig
	logger  watermill.LoggerAdapter
	manager *Manager
	owned   bool // the manager is private

	mu        sync.Mutex
	closed    bool
	subs      map[*subscription]struct{}
	endpoints map[listener]struct{}
	done      chan struct{} // closed when Close is through
}

// NewSubscriber returns a Subscriber. It listens from the first Subscribe or SubscribeInitialize on.
func NewSubscriber(config SubscriberConfig, logger watermill.LoggerAdapter) (*Subscriber, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config.setDefaults()
	if logger == nil {
		logger = watermill.NopLogger{}
	}
	manager, owned, err := managerOf(config.Manager, config.ManagerConfig, logger)
	if err != nil {
		return nil, err
	}
	return &Subscriber{
		cfg: config, logger: logger, manager: manager, owned: owned,
		subs: map[*subscription]struct{}{}, endpoints: map[listener]struct{}{}, done: make(chan struct{}),
	}, nil
}

// Subscribe returns the messages of a topic. The channel is closed after Close, after ctx is done, or with the Manager.
// ctx's values are those of the messages' contexts, which are cancelled when their delivery ends.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	d, err := s.destination(topic)
	if err != nil {
		return nil, err
	}
	e, err := s.endpoint(d)
	if err != nil {
		return nil, err
	}
	if err := s.manager.allowSubscribe(d.name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrSubscriberClosed
	}
	sub := newSubscription(ctx, s, topic, s.of(e, d.name), e.Done())
	s.subs[sub] = struct{}{}
	return sub.out, nil
}

// SubscribeInitialize makes the topic and this Subscriber's consumer group exist: messages are accepted from now on and
// wait for a subscription.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	t, err := s.topic(topic)
	if err != nil {
		return err
	}
	t.Initialize(s.cfg.ConsumerGroup)
	return nil
}

// Addr is the address at which a topic is listened for, and makes the listener where there is none: that of a topic with
// port 0 is known only then.
func (s *Subscriber) Addr(topic string) (net.Addr, error) {
	d, err := s.destination(topic)
	if err != nil {
		return nil, err
	}
	e, err := s.endpoint(d)
	if err != nil {
		return nil, err
	}
	return e.Addr(), nil
}

// DropGroup ends a consumer group of a topic for good: messages no longer wait for it.
func (s *Subscriber) DropGroup(topic, group string) error {
	t, err := s.topic(topic)
	if err != nil {
		return err
	}
	t.Drop(group)
	return nil
}

// destination finds where a topic is listened for.
func (s *Subscriber) destination(topic string) (destination, error) {
	d, ok, err := parseTopic(topic, s.cfg.ListenAddress != "")
	if err != nil {
		return d, err
	}
	if !ok {
		if s.cfg.ListenAddress == "" {
			return d, fmt.Errorf("%w: %.200q is not an address; set SubscriberConfig.ListenAddress", ErrBadTopic, topic)
		}
		target, err := parseAddress(s.cfg.ListenAddress)
		if err != nil {
			return d, err
		}
		d = destination{target, topic}
	}
	if err := checkName(d.name); err != nil {
		return d, err
	}
	if s.cfg.Wire == WireBuffStreams && d.name != "" {
		return d, fmt.Errorf("%w: the plain wire has no topic names, so that %.200q cannot be told from others; use host:port", ErrBadTopic, topic)
	}
	return d, nil
}

func (s *Subscriber) endpoint(d destination) (listener, error) {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, ErrSubscriberClosed
	}
	var e listener
	var err error
	if s.cfg.Wire == WireBuffStreams {
		e, err = s.manager.listenPlain(d.target, s.cfg.MaxMessageSize)
	} else {
		e, err = s.manager.listen(d.target)
	}
	if err != nil {
		return nil, fmt.Errorf("buffstreams: cannot listen at %s: %w", d.target.Address, err)
	}
	s.mu.Lock()
	s.endpoints[e] = struct{}{}
	s.mu.Unlock()
	return e, nil
}

func (s *Subscriber) topic(topic string) (*dispatch.Topic, error) {
	d, err := s.destination(topic)
	if err != nil {
		return nil, err
	}
	e, err := s.endpoint(d)
	if err != nil {
		return nil, err
	}
	if err := s.manager.allowSubscribe(d.name); err != nil {
		return nil, err
	}
	return s.of(e, d.name), nil
}

// of returns a topic of an endpoint.
func (s *Subscriber) of(e listener, name string) *dispatch.Topic {
	if s.cfg.Ephemeral {
		return e.EphemeralTopic(name)
	}
	return e.Topic(name)
}

// forget takes a subscription that ended off the list.
func (s *Subscriber) forget(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subs, sub)
}

// Close ends every subscription: handlers that run may end within CloseTimeout, then their messages' contexts are
// cancelled and the channels closed. What was not acked goes back to its consumer group, or, when the Manager is private,
// to its publishers. It may be called more than once; each call returns when all is done.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	subs := slices.Collect(maps.Keys(s.subs))
	s.mu.Unlock()
	if !first {
		<-s.done
		return nil
	}
	defer close(s.done)
	if s.owned {
		s.drain()
	}
	for _, sub := range subs {
		sub.close()
	}
	for _, sub := range subs {
		<-sub.done
	}
	if !s.owned {
		return nil
	}
	return s.abandon()
}

// drain keeps the subscriptions going for the messages that exist nowhere else: their publishers are gone.
func (s *Subscriber) drain() {
	deadline := time.After(s.cfg.CloseTimeout)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for _, e := range s.opened() {
		e.Drain()
	}
	for s.held() > 0 {
		select {
		case <-poll.C:
		case <-deadline:
			return
		}
	}
}

func (s *Subscriber) held() (n int) {
	for _, e := range s.opened() {
		n += e.OnlyCopies()
	}
	return n
}

// opened returns the endpoints that this subscriber has used.
func (s *Subscriber) opened() []listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.endpoints))
}

// abandon closes the private Manager. Messages that have no publisher to return to are lost, which is said.
func (s *Subscriber) abandon() error {
	if n := s.held(); n > 0 {
		s.logger.Error("Messages were not handled before Close and their publishers are gone", &UndeliveredError{Count: n},
			watermill.LogFields{"provider": "buffstreams", "count": n})
	}
	return s.manager.Close()
}
