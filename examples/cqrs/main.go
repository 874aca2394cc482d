// Commands and events between two services: a command is handled once, each handler of an event gets it.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cqrsx"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// BookRoom is a command.
type BookRoom struct{ Guest string }

// RoomBooked is an event.
type RoomBooked struct{ Guest string }

var logger = watermill.NopLogger{}

func main() {
	address, done := hotel()

	// The other service knows the hotel's address only.
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Resolver: route.To(address)}, logger)
	check(err)
	commands, err := cqrs.NewCommandBusWithConfig(publisher, cqrsx.CommandBusConfig(nil, logger))
	check(err)
	for _, guest := range []string{"Ada", "Grace"} {
		check(commands.Send(context.Background(), &BookRoom{Guest: guest}))
		fmt.Println(<-done)
		fmt.Println(<-done)
	}
	check(publisher.Close())
}

// hotel runs the service that handles commands and events on one Manager, and returns where it listens, and what was
// done.
func hotel() (string, <-chan string) {
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Logger: logger})
	check(err)
	here := buffstreams.SubscriberConfig{Manager: manager, ListenAddress: "127.0.0.1:0"}
	probe, err := buffstreams.NewSubscriber(here, logger)
	check(err)
	bound, err := probe.Addr("commands") // subscribers of a Manager with one ListenAddress share its listener
	check(err)

	own, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: manager, Resolver: route.To(bound.String())}, logger)
	check(err)
	events, err := cqrs.NewEventBusWithConfig(own, cqrsx.EventBusConfig(nil, logger))
	check(err)
	router, err := message.NewRouter(message.RouterConfig{}, logger)
	check(err)
	commandProcessor, err := cqrs.NewCommandProcessorWithConfig(router, cqrsx.CommandProcessorConfig(here, nil, logger))
	check(err)
	check(commandProcessor.AddHandlers(cqrs.NewCommandHandler("book", func(ctx context.Context, c *BookRoom) error {
		return events.Publish(ctx, &RoomBooked{Guest: c.Guest})
	})))
	eventProcessor, err := cqrs.NewEventProcessorWithConfig(router, cqrsx.EventProcessorConfig(here, nil, logger))
	check(err)
	key, beer := make(chan string, 10), make(chan string, 10)
	check(eventProcessor.AddHandlers(
		cqrs.NewEventHandler("key", func(_ context.Context, e *RoomBooked) error { key <- "key for " + e.Guest; return nil }),
		cqrs.NewEventHandler("beer", func(_ context.Context, e *RoomBooked) error { beer <- "beer for " + e.Guest; return nil }),
	))
	go func() { check(router.Run(context.Background())) }()
	<-router.Running()
	done := make(chan string)
	go func() { // in this order, for the output
		for {
			done <- <-key
			done <- <-beer
		}
	}()
	return bound.String(), done
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
