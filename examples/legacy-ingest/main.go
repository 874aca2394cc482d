// Devices that speak the original BuffStreams protocol are taken in, and handed on to a service with acks.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/route"
)

var logger = watermill.NopLogger{}

func main() {
	// The service behind, on the acked protocol.
	store, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: "127.0.0.1:0", ConsumerGroup: "store"}, logger)
	check(err)
	readings, err := store.Subscribe(context.Background(), "readings")
	check(err)
	behind, err := store.Addr("readings")
	check(err)

	// The ingest: a plain listener, and a publisher that waits until the service has each message. An outbox in place
	// of that wait would let the ingest restart while the service is away.
	ingest, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Wire: buffstreams.WireBuffStreams}, logger)
	check(err)
	plain, err := ingest.Addr("127.0.0.1:0")
	check(err)
	forward, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Resolver: route.To(behind.String())}, logger)
	check(err)
	router, err := message.NewRouter(message.RouterConfig{}, logger)
	check(err)
	router.AddHandler("ingest", "127.0.0.1:0", ingest, "readings", forward,
		func(msg *message.Message) ([]*message.Message, error) {
			return []*message.Message{message.NewMessage(watermill.NewUUID(), msg.Payload)}, nil
		})
	go func() { check(router.Run(context.Background())) }()
	<-router.Running()

	// A device, as written for BuffStreams: it dials, writes, and hears nothing back.
	device, err := pool.DialTCP(pool.WriterConfig{Address: plain.String()})
	check(err)
	for i := range 3 {
		_, err := device.Write(fmt.Appendf(nil, "reading %d", i+1))
		check(err)
	}
	for range 3 {
		msg := <-readings
		fmt.Println("stored", string(msg.Payload))
		msg.Ack()
	}
	check(device.Close())
	check(router.Close())
	check(store.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
