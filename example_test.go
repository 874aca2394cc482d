package buffstreams_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v5"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// Both ends in one process, where there was a GoChannel.
func ExampleNewPubSub() {
	pubSub, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{
		Subscriber: buffstreams.SubscriberConfig{ConsumerGroup: "billing"},
	}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	orders, err := pubSub.Subscribe(context.Background(), "orders")
	if err != nil {
		log.Fatal(err)
	}
	if err := pubSub.Publish("orders", message.NewMessage(watermill.NewUUID(), []byte("order 1"))); err != nil {
		log.Fatal(err)
	}
	msg := <-orders
	fmt.Println(string(msg.Payload))
	msg.Ack()
	if err := pubSub.Close(); err != nil {
		log.Fatal(err)
	}
	// Output: order 1
}

// A publisher says where its topics go, and what becomes of messages that are refused for good.
func ExampleNewPublisher() {
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver:       route.Static{"orders": {Addresses: []string{"billing.internal:5031"}}},
		Confirm:        buffstreams.ConfirmHandled,
		PublishTimeout: 5 * time.Second,
		OnFailure: func(topic string, encoded []byte, err error) {
			log.Printf("a message of %d bytes to %s was refused: %v", len(encoded), topic, err)
		},
	}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = publisher.Close() }()
	err = publisher.Publish("invoices", message.NewMessage(watermill.NewUUID(), nil))
	fmt.Println(errors.Is(err, route.ErrNoRoute))
	// Output: true
}

// A subscriber whose messages of one customer stay in order while others are handled side by side, and who puts away what
// cannot be handled.
func ExampleNewSubscriber() {
	failed := make(chan string, 1)
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: "127.0.0.1:0",
		ConsumerGroup: "billing",
		MaxInFlight:   16,
		Key:           func(msg *message.Message) string { return msg.Metadata.Get("customer") },
		MaxAttempts:   3,
		OnFailure:     func(msg *message.Message, reason error) { failed <- fmt.Sprintf("%s: %v", msg.Payload, reason != nil) },

		NackResendSleep: time.Millisecond,
	}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	orders, err := subscriber.Subscribe(context.Background(), "orders")
	if err != nil {
		log.Fatal(err)
	}
	address, err := subscriber.Addr("orders") // the port is known now
	if err != nil {
		log.Fatal(err)
	}
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Resolver: route.To(address.String())}, watermill.NopLogger{})
	if err != nil {
		log.Fatal(err)
	}
	if err := publisher.Publish("orders", message.NewMessage(watermill.NewUUID(), []byte("order 1"))); err != nil {
		log.Fatal(err)
	}
	for range 3 {
		msg := <-orders
		d, _ := buffstreams.DeliveryFromContext(msg.Context())
		fmt.Println("attempt", d.Attempt)
		msg.Nack()
	}
	fmt.Println(<-failed)
	if err := errors.Join(publisher.Close(), subscriber.Close()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// attempt 1
	// attempt 2
	// attempt 3
	// order 1: true
}

// A Manager is shared, and stands between the library and the network.
func ExampleNewManager() {
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{
		Logger: watermill.NopLogger{},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) { // a proxy, for example
			return (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, network, address)
		},
		Listen: net.Listen, // a socket that was handed over, for example
		OnFailure: func(topic string, encoded []byte, err error) {
			log.Printf("a message of %d bytes to %s is not delivered: %v", len(encoded), topic, err)
		},
		Acked: buffstreams.AckedConfig{
			WindowMessages: 1000,
			Reconnect: &buffstreams.ReconnectConfig{
				BackOff: func() backoff.BackOff { return backoff.NewConstantBackOff(time.Second) },
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	for _, group := range []string{"billing", "mail"} { // both listen at one address
		subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
			Manager: manager, ListenAddress: "127.0.0.1:0", ConsumerGroup: group,
		}, watermill.NopLogger{})
		if err != nil {
			log.Fatal(err)
		}
		if err := subscriber.SubscribeInitialize("orders"); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(manager.Close())
	// Output: <nil>
}

// What a handler can know of a delivery.
func ExampleDeliveryFromContext() {
	_ = func(msg *message.Message) error {
		if d, ok := buffstreams.DeliveryFromContext(msg.Context()); ok && d.Redelivered {
			log.Println("it may have been handled before")
		}
		return nil
	}
}

// Files of a certificate that is renewed without a restart.
func ExampleTLSFiles() {
	_, err := buffstreams.TLSFiles{
		Certificate: "/nowhere/tls.crt", Key: "/nowhere/tls.key",
		OnError: func(err error) { log.Println("the renewed certificate is not used:", err) },
	}.Server()
	fmt.Println(err != nil)
	// Output: true
}
