// Workers on several hosts share a topic, and the publisher knows one name: the hosts are what DNS says. One worker
// leaves, one comes, and every order is handled. The hosts are addresses of this machine, and the name server is in
// names.go.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// skipped is the exit code of a program that lacks what it needs.
const skipped = 3

var logger = watermill.NopLogger{}

func main() {
	names := newNames()
	handled := newLedger()
	port := freePort()
	var workers []*buffstreams.Subscriber
	for _, host := range []string{"127.0.0.11", "127.0.0.12", "127.0.0.13"} {
		workers = append(workers, startWorker(host, port, handled))
	}
	names.set("127.0.0.11", "127.0.0.12", "127.0.0.13")

	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: &route.DNS{
			Address: net.JoinHostPort("workers.internal", port), Route: route.Route{Policy: route.LeastPending},
			Resolver: names.resolver(),
		},
		Confirm: buffstreams.ConfirmHandled,
	}, logger)
	check(err)
	published := 0
	publishUntil := func(done func() bool) {
		for !done() {
			check(publisher.Publish("orders", message.NewMessage(watermill.NewUUID(), fmt.Append(nil, published))))
			published++
		}
	}
	publishUntil(func() bool { return handled.has("127.0.0.11", "127.0.0.12", "127.0.0.13") })
	fmt.Println("three workers share the orders")

	names.set("127.0.0.11", "127.0.0.13", "127.0.0.14") // a deployment: one goes, one comes
	newcomer := startWorker("127.0.0.14", port, handled)
	check(workers[1].Close())
	publishUntil(func() bool { return handled.has("127.0.0.14") })
	fmt.Println("one left, and one that came has its share")

	check(publisher.Close())
	for _, w := range []*buffstreams.Subscriber{workers[0], workers[2], newcomer} {
		check(w.Close())
	}
	fmt.Println("published and not handled:", published-handled.count())
}

// startWorker handles orders at a host, as a process there would.
func startWorker(host, port string, handled *ledger) *buffstreams.Subscriber {
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: net.JoinHostPort(host, port), ConsumerGroup: "workers", MaxInFlight: 4,
	}, logger)
	check(err)
	orders, err := subscriber.Subscribe(context.Background(), "orders")
	check(err)
	go func() {
		for msg := range orders {
			handled.add(host, string(msg.Payload))
			time.Sleep(time.Millisecond) // work
			msg.Ack()
		}
	}()
	return subscriber
}

// ledger keeps what was handled, and which hosts have handled something.
type ledger struct {
	mu     sync.Mutex
	hosts  map[string]bool
	orders map[string]bool
}

func newLedger() *ledger { return &ledger{hosts: map[string]bool{}, orders: map[string]bool{}} }

func (l *ledger) add(host, order string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hosts[host], l.orders[order] = true, true
}

func (l *ledger) has(hosts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range hosts {
		if !l.hosts[h] {
			return false
		}
	}
	return true
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.orders)
}

// freePort returns a port that is free at one of the hosts, and at the others: only what listens there has ports of
// theirs. Of 127.0.0.1 connections have, which go out from it.
func freePort() string {
	ln, err := net.Listen("tcp", "127.0.0.12:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "skipped: this system has no 127.0.0.12:", err)
		os.Exit(skipped)
	}
	_, port, err := net.SplitHostPort(ln.Addr().String())
	check(err)
	check(ln.Close())
	return port
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
