package buffstreams

import (
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
)

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

// Route says where the messages of a logical topic go.
type Route struct {
	// Addresses are host:port, tls://host:port or unix:///path.
	Addresses []string
	Policy    Policy
	// HashKey is the metadata key that Hash looks at.
	HashKey string
	// Name travels on the wire; empty means the topic itself.
	Name string
}

// Resolver finds the route of a logical topic. It is asked at every Publish, a StaticResolver at the first one of a topic
// only, so it should be quick, and must be safe for concurrent use.
type Resolver interface {
	Resolve(topic string) (Route, error)
}

// ResolverFunc is a function that is a Resolver.
type ResolverFunc func(topic string) (Route, error)

// Resolve calls f.
func (f ResolverFunc) Resolve(topic string) (Route, error) { return f(topic) }

// StaticResolver is a fixed map of topics to routes, not to be changed while a Publisher has it. The entry "*" is for topics
// that have none of their own.
type StaticResolver map[string]Route

// Resolve looks the topic up.
func (r StaticResolver) Resolve(topic string) (Route, error) {
	if route, ok := r[topic]; ok {
		return route, nil
	}
	if route, ok := r["*"]; ok {
		return route, nil
	}
	return Route{}, fmt.Errorf("%w: %.200q has no route", ErrBadTopic, topic)
}

// To returns a Resolver that sends every logical topic to one address. The host is looked up anew at each dial.
func To(address string) Resolver { return StaticResolver{"*": {Addresses: []string{address}}} }

// SRV returns a Resolver that finds the addresses of every logical topic as SRV records, in their order of priority and
// weight, such as SRV("orders", "tcp", "example.com", Failover) for _orders._tcp.example.com. The records are looked up at
// every Publish: put a caching resolver between where that is too much.
func SRV(service, proto, name string, policy Policy) Resolver {
	return ResolverFunc(func(string) (Route, error) {
		_, records, err := net.LookupSRV(service, proto, name)
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

// equal tells whether two routes are the same.
func (r Route) equal(o Route) bool {
	return r.Name == o.Name && r.Policy == o.Policy && r.HashKey == o.HashKey && slices.Equal(r.Addresses, o.Addresses)
}

// hashIndex maps a key to one of n addresses.
func hashIndex(key string, n int) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum64() % uint64(n))
}

// pick returns the index of the address for one message, where the policy chooses message by message.
func (r Route) pick(msg *message.Message, turn uint64) int {
	if r.Policy == Hash {
		return hashIndex(msg.Metadata.Get(r.HashKey), len(r.Addresses))
	}
	return int(turn % uint64(len(r.Addresses)))
}
