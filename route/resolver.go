package route

import (
	"context"
	"fmt"
	"strings"
)

// Resolver finds the route of a topic that names no address. A Publisher keeps what it returns: it asks at the first
// Publish to a topic, again every 30 seconds (jittered) while it uses the topic, and when an address of the route has
// failed, at most once a second. An error keeps the last route. It is called concurrently, each time on a goroutine of
// its own with no lock held, and may block: the first Publish waits for it up to PublishTimeout, later ones do not. ctx
// ends after a while, and with Close. A panic is an error.
type Resolver interface {
	Resolve(ctx context.Context, topic string) (Route, error)
}

// Watcher is a Resolver that tells when a route changes, so that it is not asked again.
type Watcher interface {
	Resolver
	// Watch calls update with the route of a topic now and after each change, until ctx is done, and returns why it
	// ended. The Publisher then asks Resolve, as it does of any Resolver, and calls Watch again after a while. It is
	// called once at a time for each topic, on a goroutine of its own. update may be called from any goroutine; it does
	// not block.
	Watch(ctx context.Context, topic string, update func(Route)) error
}

// Func is a function that is a Resolver.
type Func func(ctx context.Context, topic string) (Route, error)

// Resolve calls f.
func (f Func) Resolve(ctx context.Context, topic string) (Route, error) { return f(ctx, topic) }

// Static is a fixed map of topics to routes, which is never asked again. It must not be changed while a Publisher has
// it. An entry that ends in "*" is for all topics that begin with what is before that ("commands.*", "*"): the longest
// one wins, and an entry of the topic's own before all of them.
type Static map[string]Route

// Resolve returns the topic's entry, or an error that matches ErrNoRoute.
func (s Static) Resolve(_ context.Context, topic string) (Route, error) {
	if r, ok := match(s, topic); ok {
		return r, nil
	}
	return Route{}, fmt.Errorf("%w: %.200q", ErrNoRoute, topic)
}

// To returns a Resolver that sends every topic to one address. The host is looked up anew at each dial.
func To(address string) Resolver { return Static{"*": {Addresses: []string{address}}} }

// Prefixes asks different Resolvers for different topics. Its entries are as those of Static.
type Prefixes map[string]Resolver

// Resolve asks the Resolver of the topic's entry. Without one the error matches ErrNoRoute.
func (p Prefixes) Resolve(ctx context.Context, topic string) (Route, error) {
	if r, ok := match(p, topic); ok {
		return r.Resolve(ctx, topic)
	}
	return Route{}, fmt.Errorf("%w: %.200q", ErrNoRoute, topic)
}

// match finds the entry of a topic: its own, or the one with the longest prefix.
func match[T any](entries map[string]T, topic string) (entry T, ok bool) {
	if entry, ok = entries[topic]; ok {
		return entry, true
	}
	longest := -1
	for pattern, e := range entries {
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		if isPrefix && len(prefix) > longest && strings.HasPrefix(topic, prefix) {
			entry, ok, longest = e, true, len(prefix)
		}
	}
	return entry, ok
}
