package main

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// Contestants that differ in what of this library they use.
const (
	fixedAddress = "the topic names the address"
	routeOfOne   = "a Resolver's one address"
	threeTurns   = "three addresses, RoundRobin"
	threeLoads   = "three addresses, LeastPending"
	threeKeys    = "three addresses, Hash"
	noHooks      = "no hooks"
	allHooks     = "a hook for everything"
	oneByOne     = "message by message"
	inBatches    = "batch.Run, up to 100 messages"
)

// orderKeys is how many values the order key has where messages have one.
const orderKeys = 1000

// embedded is a contest with what a program could take in that has no other process to talk to yet: at both ends the
// server is in this process, and no socket is between.
func (s *stage) embedded() (all []contest) {
	for _, sh := range shapes[:2] {
		all = append(all, contest{name: "embedded-" + sh.name, title: sh.title, contestants: []contestant{
			s.stream(ours256, peers.Enqueued, peers.Setup{InFlight: 256}, sh.load),
			s.stream(oursAcked, peers.Received, peers.Setup{InFlight: 256}, sh.load),
			s.stream(peers.NATSEmbedded.Name, peers.NATSEmbedded, peers.Setup{}, sh.load),
			s.stream(peers.JetStreamEmbedded.Name, peers.JetStreamEmbedded, peers.Setup{}, sh.load),
		}})
	}
	return all
}

// routes has the same load, with as many keys, for every way to find an address.
func (s *stage) routes() contest {
	c := contest{name: "routes", title: shapes[2].title}
	add := func(name string, setup peers.Setup) {
		setup.InFlight, setup.Keys = 256, orderKeys
		c.contestants = append(c.contestants, s.stream(name, peers.Enqueued, setup, shapes[2].load))
	}
	add(routeOfOne, peers.Setup{Addresses: 1})
	add(fixedAddress, peers.Setup{Addresses: 1, Fixed: true})
	add(threeTurns, peers.Setup{Addresses: 3, Policy: route.RoundRobin})
	add(threeLoads, peers.Setup{Addresses: 3, Policy: route.LeastPending})
	add(threeKeys, peers.Setup{Addresses: 3, Policy: route.Hash})
	return c
}

func (s *stage) hooks() contest {
	one := shapes[0]
	return contest{name: "hooks", title: one.title, contestants: []contestant{
		s.stream(noHooks, peers.Enqueued, peers.Setup{InFlight: 256}, one.load),
		s.stream(allHooks, peers.Enqueued, peers.Setup{InFlight: 256, Hooks: true}, one.load),
	}}
}

// longCall is what each call of a handler takes that has something to do.
const longCall = 20 * time.Microsecond

func (s *stage) batches() (all []contest) {
	for _, of := range []struct {
		name, title string
		took        time.Duration
	}{{"batches-0", "a call that takes nothing", 0}, {"batches-20", "a call that computes for 20 µs", longCall}} {
		all = append(all, contest{name: of.name, title: of.title, contestants: []contestant{
			s.stream(oneByOne, peers.Enqueued, peers.Setup{InFlight: 256, ACall: of.took}, drive.Load{}),
			s.stream(inBatches, peers.Enqueued, peers.Setup{InFlight: 256, ACall: of.took, Batch: 100}, drive.Load{}),
		}})
	}
	return all
}

func (s *stage) bridge() contest {
	sh := shapes[1]
	return contest{name: "bridge", title: sh.title, contestants: []contestant{
		s.stream(peers.Bridge.Name, peers.Bridge, peers.Setup{Keys: orderKeys}, sh.load),
		s.stream(peers.JetStreamFeed.Name, peers.JetStreamFeed, peers.Setup{Keys: orderKeys}, sh.load),
	}}
}
