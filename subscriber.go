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
	cfg         SubscriberConfig
	logger      watermill.LoggerAdapter
	manager     *Manager
	ownsManager bool          // the manager is private
	done        chan struct{} // closed at the end of Close

	mu        sync.Mutex // guards what follows
	closed    bool
	subs      map[*subscription]struct{}
	listeners map[listener]struct{} // that topics of this subscriber are listened for at
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
	s := &Subscriber{
		cfg: config, logger: logger, manager: manager, ownsManager: owned, done: make(chan struct{}),
		subs: map[*subscription]struct{}{}, listeners: map[listener]struct{}{},
	}
	manager.holdUntil(config.Ready, s.done)
	return s, nil
}

// Subscribe returns the messages of a topic. The channel is closed after Close, after ctx is done, or with the Manager.
// The messages' contexts have the values of ctx, and are cancelled when their delivery ends.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	for {
		t, l, err := s.topic(topic)
		if err != nil {
			return nil, err
		}
		if sub, err := s.join(ctx, topic, t, l); sub != nil || err != nil {
			return sub.channel(), err
		}
	}
}

// join begins a subscription. It returns nil if the topic has just ended: there will be another one under its name.
func (s *Subscriber) join(ctx context.Context, topic string, t *dispatch.Topic, l listener) (*subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrSubscriberClosed
	}
	sub := newSubscription(ctx, s, topic, t, l.Done())
	if sub != nil {
		s.subs[sub] = struct{}{}
	}
	return sub, nil
}

// SubscribeInitialize makes the topic and this Subscriber's consumer group exist: messages are accepted from now on and
// wait for a subscription.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	for {
		t, _, err := s.topic(topic)
		if err != nil || t.Initialize(s.cfg.ConsumerGroup) {
			return err
		}
	}
}

// Addr returns the address at which a topic is listened for, and opens the listener if there is none: the port of a
// topic with port 0 is known only then.
func (s *Subscriber) Addr(topic string) (net.Addr, error) {
	d, err := s.destination(topic)
	if err != nil {
		return nil, err
	}
	l, err := s.listen(d)
	if err != nil {
		return nil, err
	}
	return l.Addr(), nil
}

// DropGroup ends a consumer group of a topic, declared or not: messages no longer wait for it, and its subscriptions get
// none. The next Subscribe or SubscribeInitialize makes it anew. An empty group stands for what SubscribeInitialize, or
// subscriptions that ended, keep for subscriptions without a group.
func (s *Subscriber) DropGroup(topic, group string) error {
	t, _, err := s.topic(topic)
	if err != nil {
		return err
	}
	t.Drop(group)
	return nil
}

// topic returns a topic and its listener, which it opens if there is none.
func (s *Subscriber) topic(topic string) (*dispatch.Topic, listener, error) {
	d, err := s.destination(topic)
	if err != nil {
		return nil, nil, err
	}
	l, err := s.listen(d)
	if err != nil {
		return nil, nil, err
	}
	if err := s.manager.allowSubscribe(d.name); err != nil {
		return nil, nil, err
	}
	if s.cfg.Ephemeral {
		return l.EphemeralTopic(d.name), l, nil
	}
	return l.Topic(d.name), l, nil
}

// destination returns where a topic is listened for.
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
		return d, fmt.Errorf("%w: the plain wire has no topic names, so that %.200q cannot be told from others; use host:port",
			ErrBadTopic, topic)
	}
	return d, nil
}

// listen returns the listener of a destination, and opens it if there is none.
func (s *Subscriber) listen(d destination) (l listener, err error) {
	if s.isClosed() {
		return nil, ErrSubscriberClosed
	}
	if s.cfg.Wire == WireBuffStreams {
		l, err = s.manager.listenPlain(d.target, s.cfg.MaxMessageSize)
	} else {
		l, err = s.manager.listen(d.target)
	}
	if err != nil {
		return nil, fmt.Errorf("buffstreams: cannot listen at %s: %w", d.target.Address, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners[l] = struct{}{}
	return l, nil
}

func (s *Subscriber) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// forget drops a subscription that ended.
func (s *Subscriber) forget(sub *subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subs, sub)
}

// Close ends every subscription: handlers that run may end within CloseTimeout, then their messages' contexts are
// cancelled and the channels closed. What was not acked goes back to its consumer group, or, if the Manager is private,
// to its publishers. Close may be called more than once; each call returns when all is done.
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
	if s.ownsManager {
		s.drain()
	}
	for _, sub := range subs {
		sub.close()
	}
	for _, sub := range subs {
		<-sub.done
	}
	if !s.ownsManager {
		return nil
	}
	return s.closeManager()
}

// drain lets the subscriptions handle, within CloseTimeout, the messages that exist nowhere else: their publishers are
// gone.
func (s *Subscriber) drain() {
	deadline := time.After(s.cfg.CloseTimeout)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for _, l := range s.opened() {
		l.Drain()
	}
	for s.onlyCopies() > 0 {
		select {
		case <-poll.C:
		case <-deadline:
			return
		}
	}
}

func (s *Subscriber) onlyCopies() (n int) {
	for _, l := range s.opened() {
		n += l.OnlyCopies()
	}
	return n
}

func (s *Subscriber) opened() []listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.listeners))
}

// closeManager closes the private Manager, and logs how many messages are lost as they have no publisher to return to.
func (s *Subscriber) closeManager() error {
	if n := s.onlyCopies(); n > 0 {
		s.logger.Error("Messages were not handled before Close and their publishers are gone", &UndeliveredError{Count: n},
			watermill.LogFields{"provider": "buffstreams", "count": n})
	}
	return s.manager.Close()
}
