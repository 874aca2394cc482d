package cqrsx_test

import (
	"context"
	"fmt"
	"log"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/components/cqrs"
	"github.com/ThreeDotsLabs/watermill/components/requestreply"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cqrsx"
	"github.com/buffstreams/watermill-buffstreams/route"
)

type greet struct{ Name string }
type greeting struct{ Text string }

// serve answers the command greet, and returns where it listens, and what ends it.
func serve() (address string, end func()) {
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
	check(err)
	replier, err := cqrsx.NewReplier[greeting](cqrsx.ReplierConfig{
		Manager:   manager,
		OnDropped: func(topic string, _ []byte, err error) { log.Println("a late reply to", topic, err) },
	}, nil)
	check(err)
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	check(err)
	here := buffstreams.SubscriberConfig{Manager: manager, ListenAddress: "127.0.0.1:0"}
	processor, err := cqrs.NewCommandProcessorWithConfig(router, cqrsx.CommandProcessorConfig(here, nil, nil))
	check(err)
	check(processor.AddHandlers(requestreply.NewCommandHandlerWithResult("greet", replier,
		func(_ context.Context, c *greet) (greeting, error) { return greeting{"hello, " + c.Name}, nil })))
	go func() { check(router.Run(context.Background())) }() // ends with end
	<-router.Running()
	probe, err := buffstreams.NewSubscriber(here, nil)
	check(err)
	bound, err := probe.Addr("commands.greet")
	check(err)
	return bound.String(), func() {
		check(router.Close())
		check(replier.Close())
		check(manager.Close())
	}
}

func ExampleNewRequester() {
	address, end := serve()
	defer end()
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
	check(err)
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: manager, Resolver: route.To(address)}, nil)
	check(err)
	requester, err := cqrsx.NewRequester[greeting](cqrsx.RequesterConfig{Manager: manager, Publisher: publisher}, nil)
	check(err)
	reply, err := requester.Ask(context.Background(), &greet{"world"})
	fmt.Println(reply.Text, err)
	check(requester.Close())
	check(publisher.Close())
	check(manager.Close())
	// Output: hello, world <nil>
}

// The side that answers: its handlers are Watermill's, with the Replier as their backend.
func ExampleNewReplier() {
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
	check(err)
	replier, err := cqrsx.NewReplier[greeting](cqrsx.ReplierConfig{
		Manager:   manager,
		OnDropped: func(topic string, _ []byte, err error) { log.Println("a late reply to", topic, err) },
	}, nil)
	check(err)
	_ = requestreply.NewCommandHandlerWithResult("greet", replier,
		func(_ context.Context, c *greet) (greeting, error) { return greeting{"hello, " + c.Name}, nil })
	fmt.Println(replier.Close(), manager.Close())
	// Output: <nil> <nil>
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
