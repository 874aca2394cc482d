package engines

import (
	"context"
	"fmt"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

const goChannelName = "gochannel"

// goChannelDriver opens Watermill's GoChannel: one process, memory only.
func goChannelDriver() driver.Spec {
	return driver.Spec{
		Name: goChannelName, Schemes: []string{goChannelName},
		Parameters: []driver.Parameter{
			{Name: "persistent", Help: "true: each new subscription gets all that was ever published; memory grows with it"},
		},
		Cannot: map[string]string{
			"start":            "it keeps nothing for groups that come later",
			"members":          "each group has one member here anyway",
			"batch":            "there are no requests to an engine",
			"confirm=handled":  "it confirms what the subscriptions have taken",
			"confirm=enqueued": "it confirms what the subscriptions have taken",
			"redeliver_after":  "messages die with the process",
		},
		NoHost: true,
		OpenBroker: func(_ context.Context, cfg *driver.Config) (driver.Broker, error) {
			if rest := cfg.URL.Opaque + cfg.URL.Host + cfg.URL.Path; rest != "" {
				return nil, fmt.Errorf("engines: gochannel: it has no address: %.100q", rest)
			}
			// A Publish that waits until the subscriptions have the messages keeps their order.
			persistent := cfg.Params.Bool("persistent", false)
			if err := cfg.Params.Err(); err != nil {
				return nil, err
			}
			g := gochannel.NewGoChannel(gochannel.Config{Persistent: persistent, BlockPublishUntilSubscriberAck: true}, cfg.Logger)
			return &goChannel{g: g, members: map[[2]string]bool{}}, nil
		},
	}
}

// goChannel is a Broker over Watermill's GoChannel. Its sources ack what they have fetched: there is no more durable
// place.
type goChannel struct {
	g *gochannel.GoChannel

	mu      sync.Mutex
	members map[[2]string]bool // topics and groups that have their member; guarded by mu
}

func (c *goChannel) Publish(ctx context.Context, topic string, messages []*message.Message) error {
	done := make(chan error, 1)
	go func() { done <- c.g.Publish(topic, messages...) }() // ends when the subscriptions have the messages, or are closed
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("engines: gochannel: a subscription of %.200q takes no more messages: %w", topic, ctx.Err())
	}
}

func (*goChannel) Declare(context.Context, string, string) error { return nil }

func (c *goChannel) Consume(ctx context.Context, topic, group string) (driver.Source, error) {
	key := [2]string{topic, group}
	if group != "" {
		c.mu.Lock()
		taken := c.members[key]
		c.members[key] = true
		c.mu.Unlock()
		if taken {
			return nil, &driver.UnsupportedError{
				Engine: goChannelName, Parameter: "group",
				Why: fmt.Sprintf("group %.100q of %.100q has a member, and it has one at most", group, topic),
			}
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	in, err := c.g.Subscribe(ctx, topic)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &goChannelSource{queue: make(chan *message.Message, goChannelQueue), end: func() {
		cancel()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.members, key)
	}}
	s.taking.Go(func() { s.take(ctx, in) }) // Close ends it, and waits
	return s, nil
}

func (*goChannel) Check(context.Context) error { return nil }

func (c *goChannel) Close() error { return c.g.Close() }

// goChannelQueue is how many messages wait for a subscription before Publish does.
const goChannelQueue = 4096

type goChannelSource struct {
	queue  chan *message.Message
	end    func()
	taking sync.WaitGroup
}

// take moves messages into the queue.
func (s *goChannelSource) take(ctx context.Context, in <-chan *message.Message) {
	for msg := range in {
		select {
		case s.queue <- msg:
			msg.Ack()
		case <-ctx.Done():
			msg.Nack()
		}
	}
}

func (s *goChannelSource) Fetch(ctx context.Context, _ int) ([]driver.Delivery, error) {
	select {
	case msg := <-s.queue:
		return []driver.Delivery{{Message: msg}}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (*goChannelSource) Settle(context.Context, []driver.Delivery) error { return nil }
func (*goChannelSource) Extend(context.Context, []driver.Delivery) error { return nil }
func (*goChannelSource) Return(context.Context, []driver.Delivery) error { return nil }

func (s *goChannelSource) Close() error {
	s.end()
	s.taking.Wait()
	return nil
}
