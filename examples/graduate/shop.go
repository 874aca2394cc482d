package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/buffstreams/watermill-buffstreams/engines"
)

// PlaceOrder is a command: the worker books the order.
type PlaceOrder struct {
	Number int
	Amount int
}

// OrderBooked is an event: the front sends a mail and keeps the books.
type OrderBooked struct{ Number int }

// poison is the topic of messages that no retry helps.
const poison = "poison"

var errOfNothing = errors.New("an order of nothing")

// shop has the three handlers, whatever engine is below.
type shop struct {
	engine *engines.Engine
	router *message.Router
	logger watermill.LoggerAdapter
	bus    *cqrs.CommandBus
	events *cqrs.EventBus

	mu       sync.Mutex
	tried    map[int]bool // mails whose first attempt failed; guarded by mu, as what follows
	mailed   map[int]bool
	poisoned map[int]bool
}

func topicOf(kind, name string) string { return kind + "." + name }

func (s *shop) addHandlers(role string) error {
	s.tried, s.mailed, s.poisoned = map[int]bool{}, map[int]bool{}, map[int]bool{}
	marshaler := cqrs.JSONMarshaler{GenerateName: cqrs.StructName}
	// An engine that is away is no reason: the message comes again.
	queue, err := middleware.PoisonQueueWithFilter(s.engine.Publisher(), poison, func(err error) bool { return errors.Is(err, errOfNothing) })
	if err != nil {
		return err
	}
	retry := middleware.Retry{MaxRetries: 2, InitialInterval: 5 * time.Millisecond, Logger: s.logger}
	s.router.AddMiddleware(queue, retry.Middleware, middleware.Recoverer)
	if s.bus, err = cqrs.NewCommandBusWithConfig(s.engine.Publisher(), cqrs.CommandBusConfig{
		GeneratePublishTopic: func(p cqrs.CommandBusGeneratePublishTopicParams) (string, error) {
			return topicOf("command", p.CommandName), nil
		},
		Marshaler: marshaler, Logger: s.logger,
	}); err != nil {
		return err
	}
	if s.events, err = cqrs.NewEventBusWithConfig(s.engine.Publisher(), cqrs.EventBusConfig{
		GeneratePublishTopic: func(p cqrs.GenerateEventPublishTopicParams) (string, error) {
			return topicOf("event", p.EventName), nil
		},
		Marshaler: marshaler, Logger: s.logger,
	}); err != nil {
		return err
	}
	if role != "front" {
		if err := s.addWorker(marshaler); err != nil {
			return err
		}
	}
	if role != "worker" {
		return s.addFront(marshaler)
	}
	return nil
}

// addWorker adds the command's handler.
func (s *shop) addWorker(marshaler cqrs.CommandEventMarshaler) error {
	commands, err := cqrs.NewCommandProcessorWithConfig(s.router, cqrs.CommandProcessorConfig{
		GenerateSubscribeTopic: func(p cqrs.CommandProcessorGenerateSubscribeTopicParams) (string, error) {
			return topicOf("command", p.CommandName), nil
		},
		SubscriberConstructor: func(p cqrs.CommandProcessorSubscriberConstructorParams) (message.Subscriber, error) {
			return s.engine.Group(p.HandlerName)
		},
		Marshaler: marshaler, Logger: s.logger,
	})
	if err != nil {
		return err
	}
	return commands.AddHandlers(cqrs.NewCommandHandler("book", s.book))
}

// addFront adds the event's handler and that of the poison queue.
func (s *shop) addFront(marshaler cqrs.CommandEventMarshaler) error {
	events, err := cqrs.NewEventProcessorWithConfig(s.router, cqrs.EventProcessorConfig{
		GenerateSubscribeTopic: func(p cqrs.EventProcessorGenerateSubscribeTopicParams) (string, error) {
			return topicOf("event", p.EventName), nil
		},
		SubscriberConstructor: func(p cqrs.EventProcessorSubscriberConstructorParams) (message.Subscriber, error) {
			return s.engine.Group(p.HandlerName)
		},
		Marshaler: marshaler, Logger: s.logger,
	})
	if err != nil {
		return err
	}
	sub, err := s.engine.Group("dead-letters")
	if err != nil {
		return err
	}
	s.router.AddConsumerHandler("dead-letters", poison, sub, s.noteDeadLetter)
	return events.AddHandlers(cqrs.NewEventHandler("mail", s.mail))
}

// book refuses orders of nothing for ever: they end in the poison queue.
func (s *shop) book(ctx context.Context, order *PlaceOrder) error {
	if order.Amount == 0 {
		return fmt.Errorf("order %d: %w", order.Number, errOfNothing)
	}
	return s.events.Publish(ctx, OrderBooked{Number: order.Number})
}

// mail fails once for each order: the retry helps.
func (s *shop) mail(_ context.Context, event *OrderBooked) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tried[event.Number] {
		s.tried[event.Number] = true
		return errors.New("the mail server is busy")
	}
	s.mailed[event.Number] = true
	return nil
}

func (s *shop) noteDeadLetter(msg *message.Message) error {
	var order PlaceOrder
	if err := json.Unmarshal(msg.Payload, &order); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.poisoned[order.Number] = true
	return nil
}

// placeOrders places n orders, each tenth of nothing. One whose Send fails can be stored all the same: its number is
// the same when it is sent again, so it counts once.
func (s *shop) placeOrders(ctx context.Context, n int) error {
	for i := range n {
		for {
			err := s.bus.Send(ctx, PlaceOrder{Number: i, Amount: i % 10})
			if err == nil {
				break
			}
			fmt.Fprintf(os.Stderr, "order %d is sent again: %v\n", i, err)
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return fmt.Errorf("order %d is not sent: %w", i, err)
			}
		}
	}
	return nil
}

// await waits until each order has its mail, or is poisoned.
func (s *shop) await(ctx context.Context, n int) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	told := time.Now()
	for {
		s.mu.Lock()
		mailed, poisoned := len(s.mailed), len(s.poisoned)
		s.mu.Unlock()
		if bad := (n + 9) / 10; mailed == n-bad && poisoned == bad {
			fmt.Printf("%d orders: %d mailed, %d poisoned\n", n, mailed, poisoned)
			return nil
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "waiting for the worker: %d of %d orders are mailed, %d poisoned\n", mailed, n, poisoned)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d orders are mailed, %d poisoned: %w", mailed, n, poisoned, ctx.Err())
		}
	}
}
