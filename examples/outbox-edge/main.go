// An edge device with an outbox: it publishes while its receiver is away, loses power, and a later process delivers.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

var logger = watermill.NopLogger{}

func main() {
	if len(os.Args) == 3 { // the device, in a process of its own
		measure(os.Args[1], os.Args[2])
	}
	dir, err := os.MkdirTemp("", "edge")
	check(err)
	defer func() { _ = os.RemoveAll(dir) }()
	socket := "unix://" + filepath.Join(dir, "ingest.sock") + "#readings"    // away until the end
	device := exec.Command(os.Args[0], filepath.Join(dir, "outbox"), socket) //nolint:gosec // this program itself
	device.Stdout, device.Stderr = os.Stdout, os.Stderr
	fmt.Println("the device ended:", device.Run())

	// The device has power again, and the receiver is there at last.
	box, err := outbox.Open(outbox.Config{Dir: filepath.Join(dir, "outbox")})
	check(err)
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Outbox: box}, logger)
	check(err)
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ConsumerGroup: "ingest"}, logger)
	check(err)
	readings, err := subscriber.Subscribe(context.Background(), socket)
	check(err)
	for range 3 {
		msg := <-readings
		fmt.Println("received", string(msg.Payload))
		msg.Ack()
	}
	check(publisher.Drain(context.Background())) // all are handled: nothing is left on disk
	check(publisher.Close())
	check(box.Close())
	check(subscriber.Close())
}

// measure publishes readings, and ends as a process does that loses power.
func measure(dir, topic string) {
	box, err := outbox.Open(outbox.Config{Dir: dir})
	check(err)
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Outbox: box}, logger)
	check(err)
	for i := range 3 {
		check(publisher.Publish(topic, message.NewMessage(watermill.NewUUID(), fmt.Appendf(nil, "reading %d", i+1))))
		fmt.Println("on disk: reading", i+1)
	}
	os.Exit(137)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
