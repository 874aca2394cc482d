// Two groups at one address: each gets every message, and the members of a group share them.
package main

import (
	"context"
	"fmt"
	"log"
	"sort"
	"strings"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

var logger = watermill.NopLogger{}

func main() {
	// Both groups are declared: publishers wait until both are there, also when this process starts again.
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{
		Logger: logger, Acked: buffstreams.AckedConfig{Groups: map[string][]string{"orders": {"billing", "mail"}}},
	})
	check(err)
	var handled results
	var address string
	for _, member := range []string{"billing", "billing", "mail"} {
		subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
			Manager: manager, ListenAddress: "127.0.0.1:0", ConsumerGroup: member,
		}, logger)
		check(err)
		orders, err := subscriber.Subscribe(context.Background(), "orders")
		check(err)
		bound, err := subscriber.Addr("orders")
		check(err)
		address = bound.String()
		go func() {
			for msg := range orders {
				handled.add(member, string(msg.Payload))
				msg.Ack()
			}
		}()
	}
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.To(address), Confirm: buffstreams.ConfirmHandled, // by both groups
	}, logger)
	check(err)
	for i := range 4 {
		check(publisher.Publish("orders", message.NewMessage(watermill.NewUUID(), fmt.Appendf(nil, "order %d", i+1))))
	}
	check(publisher.Close())
	check(manager.Close())
	handled.print()
}

// results are what each group handled.
type results struct {
	mu    sync.Mutex
	lines []string
}

func (r *results) add(group, order string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, group+": "+order)
}

func (r *results) print() {
	r.mu.Lock()
	defer r.mu.Unlock()
	sort.Strings(r.lines)
	fmt.Println(strings.Join(r.lines, "\n"))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
