package main

import (
	"context"
	"errors"
	"fmt"
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
	poisoned map[string]bool
}

func topicOf(kind, name string) string { return kind + "." + name }

func (s *shop) addHandlers(role string) error {
	s.tried, s.mailed, s.poisoned = map[int]bool{}, map[int]bool{}, map[string]bool{}
	marshaler := cqrs.JSONMarshaler{GenerateName: cqrs.StructName}
	queue, err := middleware.PoisonQueue(s.engine.Publisher(), poison)
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
	s.router.AddConsumerHandler("dead-letters", poison, sub, s.publishDeadLetter)
	return events.AddHandlers(cqrs.NewEventHandler("mail", s.mail))
}

// book refuses orders of nothing for ever: they end in the poison queue.
func (s *shop) book(ctx context.Context, order *PlaceOrder) error {
	if order.Amount == 0 {
		return fmt.Errorf("order %d is of nothing", order.Number)
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

func (s *shop) publishDeadLetter(msg *message.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.poisoned[msg.UUID] = true
	return nil
}

// placeOrders places n orders, each tenth of nothing.
func (s *shop) placeOrders(ctx context.Context, n int) error {
	for i := range n {
		if err := s.bus.Send(ctx, PlaceOrder{Number: i, Amount: i % 10}); err != nil {
			return err
		}
	}
	return nil
}

// await waits until each order has its mail, or is poisoned.
func (s *shop) await(ctx context.Context, n int) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		s.mu.Lock()
		mailed, poisoned := len(s.mailed), len(s.poisoned)
		s.mu.Unlock()
		if bad := (n + 9) / 10; mailed == n-bad && poisoned == bad {
			fmt.Printf("%d orders: %d mailed, %d poisoned\n", n, mailed, poisoned)
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d orders are mailed, %d poisoned: %w", mailed, n, poisoned, ctx.Err())
		}
	}
}
