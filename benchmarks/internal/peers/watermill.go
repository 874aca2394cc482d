package peers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/batch"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// topics are those of a turn.
func (s Setup) topics() []string {
	names := []string{s.Name}
	for i := 1; i < s.Topics; i++ {
		names = append(names, fmt.Sprintf("%s-%d", s.Name, i))
	}
	return names
}

// consume acks every message of the turn's topics once it is entered. The result ends the consumers after the
// subscriber was closed.
func (s Setup) consume(sub message.Subscriber, topics []string, tally *measure.Tally) (func() error, error) {
	if s.Router {
		return throughRouter(sub, topics[0], tally)
	}
	arrive := tally.Arrive
	if s.Addresses > 0 { // all of a contest alike
		arrive = tally.ArriveAny
	}
	var wg sync.WaitGroup
	var failed error
	for i, topic := range topics {
		slow := i > 0 && i == len(topics)-1 && s.Slow > 0
		messages, err := sub.Subscribe(context.Background(), topic)
		if err != nil {
			return nil, err
		}
		wg.Go(func() { // ends when the subscriber is closed
			if s.Batch > 0 {
				failed = errors.Join(failed, s.inBatches(messages, arrive)) // Batch has one topic
				return
			}
			for msg := range messages {
				if slow {
					s.dawdle()
				}
				s.compute()
				arrive(msg.Payload)
				msg.Ack()
			}
		})
	}
	return func() error { wg.Wait(); return failed }, nil
}

// inBatches consumes several messages with each call of a handler.
func (s Setup) inBatches(messages <-chan *message.Message, arrive func([]byte)) error {
	return batch.Run(context.Background(), messages, func(_ context.Context, some []*message.Message) error {
		s.compute()
		for _, msg := range some {
			arrive(msg.Payload)
		}
		return nil
	}, batch.Config{Size: s.Batch})
}

// compute is what each call of a handler takes.
func (s Setup) compute() {
	if s.ACall > 0 {
		for began := time.Now(); time.Since(began) < s.ACall; { // a sleep would be longer, and leave the processor to others
		}
	}
}

// dawdle is what a slow handler does.
func (s Setup) dawdle() {
	timer := time.NewTimer(s.Slow)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.Hurry:
	}
}

// throughRouter consumes through a Router, whose handlers run concurrently.
func throughRouter(sub message.Subscriber, topic string, tally *measure.Tally) (func() error, error) {
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	router.AddConsumerHandler("bench", topic, sub, func(msg *message.Message) error {
		tally.ArriveAny(msg.Payload)
		return nil
	})
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	wg.Go(func() { failed <- router.Run(context.Background()) }) // ends when the Router is closed
	select {
	case <-router.Running():
	case err := <-failed:
		return nil, err
	}
	return func() error {
		err := router.Close()
		wg.Wait()
		return err
	}, nil
}

// publishing sends through a Watermill publisher. Making the messages is part of it, as it is of every application.
type publishing struct {
	pub      message.Publisher
	topics   []string
	metadata []string // keys
	keys     []string // values of the order key
	scratch  [][]*message.Message
	next     []int // of keys, by sender
	eager
	ends
}

func (s Setup) publishing(pub message.Publisher, topics []string, closers ...func() error) Sender {
	p := &publishing{pub: pub, topics: topics, ends: append(ends{pub.Close}, closers...)}
	p.scratch, p.next, p.keys = make([][]*message.Message, max(s.Senders, 1)), make([]int, max(s.Senders, 1)), s.keys()
	for i := range s.Metadata {
		p.metadata = append(p.metadata, fmt.Sprintf("key_%d", i))
	}
	return p
}

// orderKey is the metadata key of the order key.
const orderKey = "customer"

// keys are the values of the order key.
func (s Setup) keys() (all []string) {
	for i := range s.Keys {
		all = append(all, fmt.Sprintf("customer_%d", i))
	}
	return all
}

func (p *publishing) Send(sender int, payloads [][]byte) error {
	messages := p.scratch[sender][:0]
	for _, payload := range payloads {
		msg := message.NewMessage(watermill.NewUUID(), payload)
		for _, key := range p.metadata {
			msg.Metadata.Set(key, "some value of it")
		}
		if len(p.keys) > 0 {
			msg.Metadata.Set(orderKey, p.keys[p.next[sender]%len(p.keys)])
			p.next[sender]++
		}
		messages = append(messages, msg)
	}
	p.scratch[sender] = messages
	return p.pub.Publish(p.topics[sender%len(p.topics)], messages...)
}

// NoTransport makes messages and drops them: what the application's side of publishing costs.
func NoTransport(s Setup) Sender { return s.publishing(nowhere{}, []string{""}) }

type nowhere struct{}

func (nowhere) Publish(string, ...*message.Message) error { return nil }
func (nowhere) Close() error                              { return nil }
