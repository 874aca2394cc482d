// A router with Retry and PoisonQueue: a message that cannot be handled leaves the way to those behind it, and ends at
// another service.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

var logger = watermill.NopLogger{}

func main() {
	graveyard, graves := listen("graveyard", "poisoned")
	shop, orders := listen("shop", "orders")
	toGraveyard, toShop := publisher(graves, buffstreams.ConfirmReceived), publisher(orders, buffstreams.ConfirmHandled)

	poison, err := middleware.PoisonQueue(toGraveyard, "poisoned")
	check(err)
	router, err := message.NewRouter(message.RouterConfig{}, logger)
	check(err)
	router.AddMiddleware(poison, middleware.Retry{MaxRetries: 2, InitialInterval: time.Millisecond}.Middleware, middleware.Recoverer)
	router.AddConsumerHandler("bill", "orders", shop, func(msg *message.Message) error {
		fmt.Println("billing", string(msg.Payload))
		if string(msg.Payload) == "order 2" {
			return errors.New("no such customer")
		}
		return nil
	})
	go func() { check(router.Run(context.Background())) }()
	<-router.Running()
	poisoned, err := graveyard.Subscribe(context.Background(), "poisoned")
	check(err)

	for i := range 3 {
		check(toShop.Publish("orders", message.NewMessage(watermill.NewUUID(), fmt.Appendf(nil, "order %d", i+1))))
	}
	msg := <-poisoned
	msg.Ack()
	check(toShop.Close())
	check(router.Close())
	check(toGraveyard.Close())
	check(graveyard.Close())
	fmt.Printf("poisoned: %s (%s)\n", msg.Payload, msg.Metadata.Get(middleware.ReasonForPoisonedKey))
}

// listen returns a subscriber at a free port, and its address.
func listen(group, topic string) (subscriber *buffstreams.Subscriber, address string) {
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: "127.0.0.1:0", ConsumerGroup: group}, logger)
	check(err)
	bound, err := subscriber.Addr(topic)
	check(err)
	return subscriber, bound.String()
}

func publisher(address string, confirm buffstreams.Confirm) *buffstreams.Publisher {
	p, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.To(address), Confirm: confirm,
	}, logger)
	check(err)
	return p
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
