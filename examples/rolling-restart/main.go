// A subscriber restarts three times while a publisher goes on. What was handled is remembered in a file, so that each
// message is handled once.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/dedupe"
)

const (
	count    = 2000
	restarts = 3
)

var logger = watermill.NopLogger{}

func main() {
	dir, err := os.MkdirTemp("", "rolling")
	check(err)
	defer func() { _ = os.RemoveAll(dir) }()
	topic := "unix://" + filepath.Join(dir, "orders.sock") + "#orders"

	published := make(chan struct{})
	go func() {
		defer close(published)
		publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, logger)
		check(err)
		for i := range count {
			check(publisher.Publish(topic, message.NewMessage(watermill.NewUUID(), fmt.Append(nil, i))))
		}
		check(publisher.Drain(context.Background()))
		check(publisher.Close())
	}()

	var handled [count]atomic.Int32
	var total atomic.Int32
	for life := range restarts {
		stop := make(chan struct{})
		quota := int32(count * (life + 1) / (restarts + 1))
		live(filepath.Join(dir, "dedupe"), topic, stop, func(i int) {
			handled[i].Add(1)
			if total.Add(1) == quota {
				close(stop)
			}
		})
		fmt.Println("restart", life+1)
	}
	live(filepath.Join(dir, "dedupe"), topic, published, func(i int) { handled[i].Add(1) })
	lost, twice := 0, 0
	for i := range handled {
		switch n := handled[i].Load(); {
		case n == 0:
			lost++
		case n > 1:
			twice++
		}
	}
	fmt.Printf("published %d, lost %d, handled twice %d\n", count, lost, twice)
}

// live is one life of the subscriber: from its start until stop is closed.
func live(file, topic string, stop <-chan struct{}, handle func(int)) {
	store, err := dedupe.Open(file)
	check(err)
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Logger: logger, Acked: buffstreams.AckedConfig{Dedupe: store}})
	check(err)
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: manager, ConsumerGroup: "billing", MaxInFlight: 16,
	}, logger)
	check(err)
	orders, err := subscriber.Subscribe(context.Background(), topic)
	check(err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for msg := range orders {
			var i int
			_, err := fmt.Sscan(string(msg.Payload), &i)
			check(err)
			handle(i)
			msg.Ack()
		}
	}()
	<-stop
	check(subscriber.Close())
	<-ended
	check(manager.Close())
	check(store.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
