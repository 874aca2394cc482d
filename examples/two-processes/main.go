// Two processes, after the split: orders go over TCP. See gochannel for before; its diff is in ../README.md.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

func main() {
	logger := watermill.NopLogger{}
	if len(os.Args) > 1 { // the second process
		publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Resolver: route.To(os.Args[1])}, logger)
		if err != nil {
			log.Fatal(err)
		}
		shop(publisher, 3)
		if err := publisher.Close(); err != nil {
			log.Fatal(err)
		}
		return
	}
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: "127.0.0.1:0", ConsumerGroup: "billing"}, logger)
	if err != nil {
		log.Fatal(err)
	}
	done := bill(subscriber, 3)
	start(subscriber)
	<-done
	if err := subscriber.Close(); err != nil {
		log.Fatal(err)
	}
}

// shop publishes orders.
func shop(publisher message.Publisher, count int) {
	for i := range count {
		msg := message.NewMessage(watermill.NewUUID(), fmt.Appendf(nil, "order %d", i+1))
		if err := publisher.Publish("orders", msg); err != nil {
			log.Fatal(err)
		}
	}
}

// bill handles orders.
func bill(subscriber message.Subscriber, count int) <-chan struct{} {
	orders, err := subscriber.Subscribe(context.Background(), "orders")
	if err != nil {
		log.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range count {
			msg := <-orders
			fmt.Println("billed", string(msg.Payload))
			msg.Ack()
		}
	}()
	return done
}

// start starts the second process, which a user would start elsewhere.
func start(subscriber *buffstreams.Subscriber) {
	address, err := subscriber.Addr("orders")
	if err != nil {
		log.Fatal(err)
	}
	second := exec.Command(os.Args[0], address.String()) //nolint:gosec // this program itself
	second.Stderr = os.Stderr
	if err := second.Start(); err != nil {
		log.Fatal(err)
	}
}
