// Package route says where the messages of a topic go. A Resolver finds the Route of a topic, which is a set of
// addresses with a policy that says how messages are shared among them. The package knows neither messages nor the
// wire.
package route

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrNoRoute means that a topic has no route.
var ErrNoRoute = errors.New("route: topic has no route")

// Policy says which of a route's addresses a message goes to. docs/routing.md has a table of each: what it promises for
// order, and what happens when an address comes, goes, is slow or is full.
type Policy int

// The policies of a Route. All of them prefer addresses that are ready, and, of these, the ones with the lowest
// priority.
const (
	// Failover sends everything to one address, that with the lowest priority. While it is not ready another one has
	// its place; it gets it back when it has been ready for a while.
	Failover Policy = iota
	// RoundRobin sends each message to the next address that is ready and has room, in proportion to the weights.
	RoundRobin
	// Hash sends messages with the same value of the metadata key HashKey to the same address, in order: each key has
	// one of 256 slots, and a slot belongs to one address at a time. A message without the key goes as with
	// LeastPending.
	Hash
	// All sends every message to every address, or to every one of Route.Groups, side by side, and waits for all of
	// them.
	All
	// LeastPending sends each message to that of two addresses, chosen at random, which has fewer messages pending.
	LeastPending

	policies // their number
)

func (p Policy) valid() bool { return p >= 0 && p < policies }

// Route says where the messages of a topic go. It is a value: what a Resolver has returned must not be changed.
type Route struct {
	// Addresses are host:port, tls://host:port or unix:///path. Their order has no meaning where Attributes says
	// something of any of them. Without that, Failover takes their order as their priority.
	Addresses []string
	// Attributes has what else is known of some of the addresses, by address. Nil: nothing is.
	Attributes map[string]Attributes
	// Policy says how messages are shared among the addresses. The zero value is Failover.
	Policy Policy
	// HashKey is the metadata key that Hash looks at, which needs one.
	HashKey string
	// Name is the topic's name on the wire. Empty means the topic itself.
	Name string
	// Groups, with All, are sets of addresses of which each gets every message, at the address that its own policy
	// picks: fan-out between groups, competition within one. Addresses must then be empty. Groups have no Groups, nor
	// All, and no Name.
	Groups []Route
}

// Attributes is what a route says of one of its addresses.
type Attributes struct {
	// Priority orders the addresses: those with the lowest that is usable are used.
	Priority int
	// Weight is the share of the messages among addresses of one priority; 0 means 1.
	Weight int
	// ServerName is the name that the certificate of a tls:// address must have; empty means the host of the address.
	ServerName string
}

// Member is one address of a route, with what the route says of it.
type Member struct {
	Address string
	Attributes
}

// Members returns the addresses of a route, each once, with weights of at least 1.
func (r Route) Members() []Member {
	members := make([]Member, 0, len(r.Addresses))
	seen := make(map[string]bool, len(r.Addresses))
	for i, address := range r.Addresses {
		if seen[address] {
			continue
		}
		seen[address] = true
		m := Member{Address: address, Attributes: r.Attributes[address]}
		if r.Policy == Failover && len(r.Attributes) == 0 {
			m.Priority = i
		}
		m.Weight = max(1, m.Weight)
		members = append(members, m)
	}
	return members
}

// set returns the members in an order that does not depend on that of the addresses.
func (r Route) set() []Member {
	members := r.Members()
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Address, b.Address) })
	return members
}

// Equal reports whether two routes say the same.
func (r Route) Equal(o Route) bool {
	return r.Name == o.Name && r.Policy == o.Policy && r.HashKey == o.HashKey &&
		slices.Equal(r.set(), o.set()) && slices.EqualFunc(r.Groups, o.Groups, Route.Equal)
}

// Clone returns a copy that shares no memory with r.
func (r Route) Clone() Route {
	r.Addresses, r.Attributes, r.Groups = slices.Clone(r.Addresses), maps.Clone(r.Attributes), slices.Clone(r.Groups)
	for i := range r.Groups {
		r.Groups[i] = r.Groups[i].Clone()
	}
	return r
}

// Validate says why a route cannot be used. It does not look at the form of the addresses.
func (r Route) Validate() error {
	switch {
	case !r.Policy.valid():
		return fmt.Errorf("route: unknown policy %d", r.Policy)
	case r.Policy == Hash && r.HashKey == "":
		return errors.New("route: Hash needs HashKey, the metadata key that it looks at")
	case len(r.Groups) > 0 && r.Policy != All:
		return errors.New("route: Groups need the policy All")
	case len(r.Groups) > 0 && len(r.Addresses) > 0:
		return errors.New("route: both Addresses and Groups are set; make the addresses a group of their own")
	case len(r.Groups) == 0 && len(r.Addresses) == 0:
		return errors.New("route: it has no address")
	}
	for i, g := range r.Groups {
		if len(g.Groups) > 0 || g.Policy == All || g.Name != "" {
			return fmt.Errorf("route: group %d has Groups, a Name or the policy All; list its addresses instead", i)
		}
		if err := g.Validate(); err != nil {
			return fmt.Errorf("group %d: %w", i, err)
		}
	}
	if secure, plain := r.count(isTLS), r.count(isPlaintext); secure > 0 && plain > 0 {
		return errors.New("route: it has tls:// addresses and others without TLS, and a failure must not lead from one to the other; use one kind")
	}
	for address, a := range r.Attributes {
		if a.Weight < 0 {
			return fmt.Errorf("route: the weight of %.200q is negative", address)
		}
	}
	return nil
}

// count is the number of addresses of a kind.
func (r Route) count(is func(address string) bool) (n int) {
	for _, address := range r.Addresses {
		if is(address) {
			n++
		}
	}
	return n
}

func isTLS(address string) bool { return strings.HasPrefix(address, "tls://") }

// isPlaintext tells whether others could read what goes to an address: what goes to a Unix socket stays on the machine.
func isPlaintext(address string) bool {
	return !isTLS(address) && !strings.HasPrefix(address, "unix://")
}
