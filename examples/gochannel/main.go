// One process, before it is split: orders go through a GoChannel. See two-processes for after.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

func main() {
	logger := watermill.NopLogger{}
	pubSub := gochannel.NewGoChannel(gochannel.Config{}, logger)
	done := bill(pubSub, 3)
	shop(pubSub, 3)
	<-done
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
