// A service asks another and waits for the answer.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/components/requestreply"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cqrsx"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// Divide is a command.
type Divide struct{ A, B int }

// Quotient is its result.
type Quotient struct{ Value int }

var logger = watermill.NopLogger{}

func main() {
	address := calculator()

	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Logger: logger})
	check(err)
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: manager, Resolver: route.To(address)}, logger)
	check(err)
	requester, err := cqrsx.NewRequester[Quotient](cqrsx.RequesterConfig{
		Manager: manager, Publisher: publisher, Timeout: 5 * time.Second, // on one host; elsewhere ListenAddress and AdvertisedAddress too
	}, nil)
	check(err)
	for _, c := range []Divide{{42, 6}, {1, 0}} {
		q, err := requester.Ask(context.Background(), &c)
		var refused requestreply.CommandHandlerError
		switch {
		case errors.As(err, &refused):
			fmt.Printf("%d / %d: %v\n", c.A, c.B, refused)
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Printf("%d / %d = %d\n", c.A, c.B, q.Value)
		}
	}
	check(requester.Close())
	check(publisher.Close())
	check(manager.Close())
}

// calculator runs the service that answers, and returns where it listens.
func calculator() (address string) {
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Logger: logger})
	check(err)
	here := buffstreams.SubscriberConfig{Manager: manager, ListenAddress: "127.0.0.1:0", MaxInFlight: 16}
	probe, err := buffstreams.NewSubscriber(here, logger)
	check(err)
	bound, err := probe.Addr("commands")
	check(err)
	replier, err := cqrsx.NewReplier[Quotient](cqrsx.ReplierConfig{Manager: manager, Logger: logger}, nil)
	check(err)
	router, err := message.NewRouter(message.RouterConfig{}, logger)
	check(err)
	processor, err := cqrs.NewCommandProcessorWithConfig(router, cqrsx.CommandProcessorConfig(here, nil, logger))
	check(err)
	check(processor.AddHandlers(requestreply.NewCommandHandlerWithResult("divide", replier,
		func(_ context.Context, c *Divide) (Quotient, error) {
			if c.B == 0 {
				return Quotient{}, errors.New("division by zero")
			}
			return Quotient{Value: c.A / c.B}, nil
		})))
	go func() { check(router.Run(context.Background())) }()
	<-router.Running()
	return bound.String()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
