package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
)

// Subscriber listens at address topics, and for logical topics at its ListenAddress. It is safe for concurrent use.
type Subscriber struct {
	cfg         SubscriberConfig
	logger      watermill.LoggerAdapter
	manager     *Manager
	ownsManager bool          // the manager is private
	done        chan struct{} // closed at the end of Close
	closeErr    error         // of Close; set before done is closed
	stats       statsCache[SubscriberStats]

	mu     sync.Mutex // guards what follows
	closed bool
	subs   map[*subscription]struct{}
}

// NewSubscriber returns a Subscriber. It listens from the first Subscribe or SubscribeInitialize on.
func NewSubscriber(config SubscriberConfig, logger watermill.LoggerAdapter) (*Subscriber, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	config.setDefaults()
	logger = hook.Logger(logger)
	s := &Subscriber{logger: logger, done: make(chan struct{}), subs: map[*subscription]struct{}{}}
	if config.OnFailure != nil && config.ManagerConfig.OnFailure == nil {
		config.ManagerConfig.OnFailure = s.undelivered
	}
	s.cfg = config
	var err error
	if s.manager, s.ownsManager, err = managerOf(config.Manager, config.ManagerConfig, logger); err != nil {
		return nil, err
	}
	s.manager.holdUntil(config.Ready, s.done)
	return s, nil
}

// Subscribe returns the messages of a topic. The channel is closed after Close, after ctx is done, or with the Manager:
// when handlers have answered for what they have, or CloseTimeout is over. Until then messages that no connected
// publisher keeps are still emitted, unless another subscription of the consumer group can have them. Channels of one
// Manager whose subscriptions end together are closed together, each when its acks were written. The messages' contexts
// have the values of ctx, and are cancelled when their delivery ends.
//
// The first Subscribe to an address listens there. Subscribe does not wait for messages. The error is
// ErrSubscriberClosed, one that matches ErrBadTopic or ErrForbidden, or why the address cannot be listened at.
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
	sub := newSubscription(ctx, s, topic, t, l)
	if sub != nil {
		s.subs[sub] = struct{}{}
	}
	return sub, nil
}

// SubscribeInitialize makes the topic and this Subscriber's consumer group exist: messages are accepted from now on and
// wait for a subscription. Without a group they wait for the first subscription to come, unless there is a group
// already. Its errors are those of Subscribe.
func (s *Subscriber) SubscribeInitialize(topic string) error {
	for {
		t, _, err := s.topic(topic)
		if err != nil || t.Initialize(s.cfg.ConsumerGroup) && (s.cfg.Ephemeral || t.Outlast()) {
			return err
		}
	}
}

// Addr returns the address at which a topic is listened for, and opens the listener if there is none: the port of a
// topic with port 0 is known only then. Its errors are those of Subscribe.
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

// DropGroup ends a consumer group of a topic, declared or not: messages no longer wait for it, except those that its
// handlers have, and its subscriptions get none, nor a nacked one again. The next Subscribe or SubscribeInitialize
// makes it anew. An empty group stands for what SubscribeInitialize, or subscriptions that ended, keep for
// subscriptions without a group. Its errors are those of Subscribe.
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

// Close ends every subscription, as the end of its context does: handlers that run may end within CloseTimeout, and
// have what no publisher keeps, then their messages' contexts are cancelled and the channels closed. What was not acked
// goes back to its consumer group. If the Manager is private, it goes back to its publishers; what has none and was not
// handled is reported by an *UndeliveredError and given to OnFailure. Close returns soon after CloseTimeout at the
// latest; the error names callbacks, such as DeadLetter, that have not returned by then. Later and concurrent calls
// wait for the first and return the same.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	subs := slices.Collect(maps.Keys(s.subs))
	s.mu.Unlock()
	if !first {
		<-s.done
		return s.closeErr
	}
	s.closeErr = s.shutDown(subs, time.Now().Add(s.cfg.CloseTimeout))
	close(s.done)
	return s.closeErr
}

// shutDown is Close, once.
func (s *Subscriber) shutDown(subs []*subscription, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	var errs []error
	if s.ownsManager {
		errs = append(errs, s.manager.closeWithin(ctx))
	}
	for _, sub := range subs { // all, before one of them leaves others to answer for what it has
		sub.beginClose(deadline)
	}
	for _, sub := range subs {
		sub.notify()
	}
	for _, sub := range subs {
		<-sub.done
		errs = append(errs, sub.late)
	}
	return errors.Join(errs...)
}

// undelivered returns OnFailure in the form of ManagerConfig.OnFailure.
func (s *Subscriber) undelivered(topic string, encoded []byte, err error) {
	var msg *message.Message
	bad := hook.Call(nameUnmarshaler, func() (err error) {
		if msg, err = s.cfg.Unmarshaler.Unmarshal(topic, encoded); err == nil {
			msg, err = usable(msg)
		}
		return err
	})
	if bad != nil {
		msg = message.NewMessage("", encoded)
	}
	s.cfg.OnFailure(msg, err)
}
