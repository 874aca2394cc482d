package route_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/route"
)

func ExampleTo() {
	r, err := route.To("billing.internal:5031").Resolve(context.Background(), "orders")
	fmt.Println(r.Addresses, err)
	// Output: [billing.internal:5031] <nil>
}

// A fixed map, with an entry for topics that have none of their own.
func ExampleStatic() {
	routes := route.Static{
		"orders": {Addresses: []string{"10.0.0.1:5031", "10.0.0.2:5031"}, Policy: route.Hash, HashKey: "customer"},
		"*":      {Addresses: []string{"10.0.0.3:5031"}},
	}
	for _, topic := range []string{"orders", "mail"} {
		r, err := routes.Resolve(context.Background(), topic)
		fmt.Println(topic, r.Addresses, err)
	}
	_, err := route.Static{}.Resolve(context.Background(), "orders")
	fmt.Println(errors.Is(err, route.ErrNoRoute))
	// Output:
	// orders [10.0.0.1:5031 10.0.0.2:5031] <nil>
	// mail [10.0.0.3:5031] <nil>
	// true
}

// A function can ask whatever knows.
func ExampleFunc() {
	resolver := route.Func(func(_ context.Context, topic string) (route.Route, error) {
		return route.Route{Addresses: []string{topic + ".internal:5031"}}, nil
	})
	r, err := resolver.Resolve(context.Background(), "billing")
	fmt.Println(r.Addresses, err)
	// Output: [billing.internal:5031] <nil>
}

// Every address of a name is one that messages can go to. It goes into PublisherConfig.Resolver.
func ExampleDNS() {
	workers := &route.DNS{Address: "workers.internal:5031", Route: route.Route{Policy: route.LeastPending}}
	fmt.Println(workers.Address)
	// Output: workers.internal:5031
}

// SRV records say priorities, weights and ports.
func ExampleSRV() {
	orders := &route.SRV{Service: "orders", Proto: "tcp", Name: "example.com"}
	fmt.Printf("_%s._%s.%s\n", orders.Service, orders.Proto, orders.Name)
	// Output: _orders._tcp.example.com
}
