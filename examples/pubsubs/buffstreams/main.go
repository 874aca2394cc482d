// Sources for https://watermill.io/learn/getting-started/
package main

import (
	"context"
	"log"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

const topic = "example.topic"

func main() {
	logger := watermill.NewStdLogger(false, false)
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: "127.0.0.1:0", // a free port; an address such as ":5031" for other hosts needs TLS
		ConsumerGroup: "example",
	}, logger)
	if err != nil {
		panic(err)
	}

	messages, err := subscriber.Subscribe(context.Background(), topic)
	if err != nil {
		panic(err)
	}

	go process(messages)

	address, err := subscriber.Addr(topic)
	if err != nil {
		panic(err)
	}

	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Resolver: route.To(address.String())}, logger)
	if err != nil {
		panic(err)
	}

	publishMessages(publisher)
}

func publishMessages(publisher message.Publisher) {
	for {
		msg := message.NewMessage(watermill.NewUUID(), []byte("Hello, world!"))

		if err := publisher.Publish(topic, msg); err != nil {
			panic(err)
		}

		time.Sleep(time.Second)
	}
}

func process(messages <-chan *message.Message) {
	for msg := range messages {
		log.Printf("received message: %s, payload: %s", msg.UUID, string(msg.Payload))

		// we need to Acknowledge that we received and processed the message,
		// otherwise, it will be resent over and over again.
		msg.Ack()
	}
}
