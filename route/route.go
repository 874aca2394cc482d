// Package route says where the messages of a topic go: a Resolver finds the Route of a topic, which is a set of addresses
// with a policy.
package route

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// ErrNoRoute means that a topic has no route.
var ErrNoRoute = errors.New("route: topic has no route")

// Policy says which of a route's addresses a message goes to.
type Policy int

// The policies of a Route.
const (
	// Failover sends to the first address that is connected, or to the first of all while none is. Messages that a lost
	// address has taken stay with it.
	Failover Policy = iota
	// RoundRobin sends each message to the next address.
	RoundRobin
	// Hash sends messages with the same value of the metadata key HashKey to the same address, in order.
	Hash
	// All sends every message to every address, and waits for all of them.
	All
)

// Route says where the messages of a topic go.
type Route struct {
	// Addresses are host:port, tls://host:port or unix:///path.
	Addresses []string
	Policy    Policy
	// HashKey is the metadata key that Hash looks at.
	HashKey string
	// Name is the topic's name on the wire. Empty means the topic itself.
	Name string
}

// Equal reports whether two routes are the same, the order of their addresses included.
func (r Route) Equal(o Route) bool {
	return r.Name == o.Name && r.Policy == o.Policy && r.HashKey == o.HashKey && slices.Equal(r.Addresses, o.Addresses)
}

// Resolver finds the route of a topic that names no address. A Publisher asks it at every Publish, a Static only at the first
// one of each topic, from one goroutine for each topic and with no lock held. It must be safe for concurrent use, and should
// be quick: Publish waits for it, up to PublishTimeout. ctx ends when the Publisher closes. A panic is an error of the Publish
// calls that wait.
type Resolver interface {
	Resolve(ctx context.Context, topic string) (Route, error)
}

// Func is a function that is a Resolver.
type Func func(ctx context.Context, topic string) (Route, error)

// Resolve calls f.
func (f Func) Resolve(ctx context.Context, topic string) (Route, error) { return f(ctx, topic) }

// Static is a fixed map of topics to routes. It must not be changed while a Publisher has it. The entry "*" is for topics
// without an entry of their own.
type Static map[string]Route

// Resolve returns the topic's entry, or an error that matches ErrNoRoute.
func (s Static) Resolve(_ context.Context, topic string) (Route, error) {
	if route, ok := s[topic]; ok {
		return route, nil
	}
	if route, ok := s["*"]; ok {
		return route, nil
	}
	return Route{}, fmt.Errorf("%w: %.200q", ErrNoRoute, topic)
}

// To returns a Resolver that sends every topic to one address. The host is looked up anew at each dial.
func To(address string) Resolver { return Static{"*": {Addresses: []string{address}}} }

// SRV returns a Resolver that finds the addresses of every topic as SRV records, in their order of priority and weight, such as
// SRV("orders", "tcp", "example.com", Failover) for _orders._tcp.example.com. The records are looked up at every Publish: put
// a caching resolver between where that is too much.
func SRV(service, proto, name string, policy Policy) Resolver {
	return Func(func(ctx context.Context, _ string) (Route, error) {
		_, records, err := net.DefaultResolver.LookupSRV(ctx, service, proto, name)
		if err != nil {
			return Route{}, err
		}
		route := Route{Policy: policy}
		for _, r := range records {
			host := strings.TrimSuffix(r.Target, ".")
			route.Addresses = append(route.Addresses, net.JoinHostPort(host, strconv.Itoa(int(r.Port))))
		}
		return route, nil
	})
}
