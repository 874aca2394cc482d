package engines

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
	"github.com/buffstreams/watermill-buffstreams/engines/internal/consume"
)

// brokered is the PubSub of an engine with a server.
type brokered struct {
	explainer
	broker driver.Broker
	cfg    *driver.Config
	pub    *publisher

	mu     sync.Mutex
	subs   map[string]*consume.Subscriber // by group; guarded by mu
	closed bool                           // guarded by mu
	done   chan struct{}                  // closed at the end of Close
	err    error                          // of Close, once done is closed
}

func newBrokered(spec driver.Spec, broker driver.Broker, cfg *driver.Config) *brokered {
	pub := &publisher{explainer: explainer{spec}, broker: broker, settings: cfg.Settings}
	return &brokered{
		explainer: pub.explainer, broker: broker, cfg: cfg, pub: pub, subs: map[string]*consume.Subscriber{}, done: make(chan struct{}),
	}
}

func (b *brokered) Publisher() message.Publisher { return b.pub }

func (b *brokered) Subscriber(group string) (message.Subscriber, error) {
	if group == "" {
		group = b.cfg.Group
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	s := b.subs[group]
	if s == nil {
		s = consume.NewSubscriber(consume.Config{
			Engine: b.spec.Name, Broker: b.broker, Explain: b.explain, Settings: b.cfg.Settings,
			Logger: b.cfg.Logger.With(watermill.LogFields{"group": group}), DeadLetter: b.pub, ErrClosed: ErrClosed,
		}, group)
		b.subs[group] = s
	}
	return s, nil
}

func (b *brokered) Check(ctx context.Context) error { return b.explain(b.broker.Check(ctx)) }

// Close closes the subscribers side by side, then the publisher, which their handlers may use, then the broker.
func (b *brokered) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		<-b.done
		return b.err
	}
	b.closed = true
	b.mu.Unlock()
	var closing sync.WaitGroup
	for _, s := range b.subs {
		closing.Go(func() { _ = s.Close() }) // it has no error
	}
	closing.Wait()
	b.err = errors.Join(b.pub.Close(), b.broker.Close())
	close(b.done)
	return b.err
}

// publisher is the message.Publisher of an engine with a server.
type publisher struct {
	explainer
	broker   driver.Broker
	settings driver.Settings

	mu     sync.RWMutex // held for reading while a call publishes
	closed bool
}

// Publish returns nil when the engine has confirmed all messages, and else what is unknown or refused: a
// *driver.PublishError where that is of single messages.
func (p *publisher) Publish(topic string, messages ...*message.Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.settings.PublishTimeout)
	defer cancel()
	return p.PublishContext(ctx, topic, messages...)
}

// PublishContext is Publish that ends with ctx instead of publish_timeout.
func (p *publisher) PublishContext(ctx context.Context, topic string, messages ...*message.Message) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	switch {
	case p.closed:
		return ErrClosed
	case topic == "":
		return fmt.Errorf("engines: %s: the topic is empty", p.spec.Name)
	case len(messages) == 0:
		return nil
	}
	if limit := p.settings.MaxMessageSize; limit > 0 {
		for i, msg := range messages {
			if size := driver.Size(msg); size > limit {
				err := fmt.Errorf("%w: message %d of the call has %d bytes, max_message_size is %d", driver.ErrTooLarge, i, size, limit)
				return &driver.RefusedError{Engine: p.spec.Name, Topic: topic, Err: err}
			}
		}
	}
	return p.explain(p.broker.Publish(ctx, topic, messages))
}

// Close waits for Publish calls. Later ones return ErrClosed.
func (p *publisher) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return nil
}
