package main

import (
	"fmt"
	"strconv"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// goal is a figure to reach, with the spread that it is the median of.
type goal struct {
	ID string `json:"id"`
	measure.Goal
	Spread  measure.Spread `json:"spread"`
	Reached bool           `json:"reached"`
}

// goals collects them; the first figure that is missing fails it.
type goals struct {
	r   *report
	all []goal
	err error
}

func (g *goals) add(id, what string, want float64, atMost bool, got measure.Spread, err error) {
	if err != nil {
		if g.err == nil {
			g.err = fmt.Errorf("%s: %w", id, err)
		}
		return
	}
	m := measure.Goal{What: what, Want: want, Got: got.Median, AtMost: atMost}
	g.all = append(g.all, goal{ID: id, Goal: m, Spread: got, Reached: m.Met()})
}

// least adds the goal that of is at least want times as much as the best of to; contests that did not run are passed
// over.
func (g *goals) least(id, contest, what string, want float64, of string, to ...string) {
	g.compare(id, contest, what, want, false, drive.Rate, of, to...)
}

func (g *goals) compare(id, contest, what string, want float64, atMost bool, figure, of string, to ...string) {
	if c := g.r.Results[contest]; c != nil {
		got, err := c.ratio(figure, of, to...)
		g.add(id, c.Title+": "+what, want, atMost, got, err)
	}
}

// most adds the goal that a figure is at most want.
func (g *goals) most(id, contest, who, figure, what string, want, scale float64) {
	if c := g.r.Results[contest]; c != nil {
		got := c.of(who, figure)
		got.Median, got.Min, got.Max = got.Median/scale, got.Min/scale, got.Max/scale
		g.add(id, what, want, true, got, nil)
	}
}

// goals are those that the library set itself before its parts were written.
func (r *report) goals() ([]goal, error) {
	g := &goals{r: r}
	for _, n := range []string{"plain-1", "plain-16"} {
		g.least("P1", n, "× BuffStreams-like", 25, peers.Plain.Name, peers.BuffStreams.Name)
		g.least("P1", n, "× raw TCP frames", 0.7, peers.Plain.Name, peers.Frames.Name)
	}
	for _, sh := range shapes {
		c := "async-" + sh.name
		g.least("P2", c, "MaxInFlight 1 × GoChannel", 5, ours1, peers.GoChannel.Name)
		g.least("P2", c, "MaxInFlight 1 × NATS core", 3.5, ours1, peers.NATSCore.Name)
	}
	for _, sh := range shapes {
		c := "async-" + sh.name
		g.least("P3", c, "MaxInFlight 256 × GoChannel", 8, ours256, peers.GoChannel.Name)
		g.least("P3", c, "MaxInFlight 256 × NATS core", 5.5, ours256, peers.NATSCore.Name)
		g.least("P3", c, "MaxInFlight 256 × nats.go without Watermill", 0.65, ours256, peers.NATSGo.Name)
	}
	for _, sh := range shapes[:2] {
		g.least("P3", "apart-"+sh.name, "two processes × the faster NATS core", 5, ours256, peers.NATSCore.Name, natsThree)
	}
	g.least("P4", "router", "× the best of GoChannel and NATS core", 3, ours256, peers.GoChannel.Name, peers.NATSCore.Name)
	g.least("P4", "router", "× the Router's ceiling", 0.75, ours256, peers.Bare.Name)
	g.confirmed()
	g.roundTrips()
	g.most("P7", "apart-1", ours256, allocsPublishing, "allocations a message, publisher, ConfirmEnqueued", 1, 1)
	g.most("P7", "apart-1", ours256, drive.ReceiverAllocs, "allocations a message, subscriber, 4 of them message.NewMessage", 6, 1)
	for _, size := range sizes {
		g.least("P8", "payload-"+size.name, "× raw TCP frames of that size", 0.7, ours256, peers.BigFrames.Name)
	}
	g.growth()
	g.least("P10", "slow", "a fast topic beside a slow one × alone", 0.9, besideSlow, alone)
	g.features()
	return g.all, g.err
}

// features are what came later: what a route, hooks, batches and the bridge may cost, and the least beside an embedded
// server.
func (g *goals) features() {
	g.least("P11", "embedded-1", "MaxInFlight 256 × core", 5.5, ours256, peers.NATSEmbedded.Name)
	g.least("P11", "embedded-100", "MaxInFlight 256 × core", 5.5, ours256, peers.NATSEmbedded.Name)
	g.least("P11", "embedded-1", "ConfirmReceived × JetStream", 1, oursAcked, peers.JetStreamEmbedded.Name)
	g.least("P11", "embedded-100", "ConfirmReceived × JetStream", 4.5, oursAcked, peers.JetStreamEmbedded.Name)
	g.least("P12", "routes", "a Resolver's one address × a fixed one", 0.97, routeOfOne, fixedAddress)
	g.least("P12", "routes", "three addresses, RoundRobin × one", 0.9, threeTurns, routeOfOne)
	g.least("P12", "routes", "three addresses, LeastPending × one", 0.9, threeLoads, routeOfOne)
	g.least("P13", "hooks", "hooks × none", 0.92, allHooks, noHooks)
	g.least("P14", "batches-0", "batch.Run × message by message", 0.9, inBatches, oneByOne)
	g.least("P14", "batches-20", "batch.Run × message by message", 10, inBatches, oneByOne)
	g.least("P15", "bridge", "the bridge × nats.go", 0.8, peers.Bridge.Name, peers.JetStreamFeed.Name)
}

// confirmed compares a batch with each peer, and 16 publishers with the faster ones at their best.
func (g *goals) confirmed() {
	sync, async, http := peers.JetStream.Name, peers.JetStreamAsync.Name, peers.HTTP.Name
	g.least("P5", "confirmed-100", "× JetStream", 60, oursAcked, sync)
	g.least("P5", "confirmed-100", "× HTTP", 20, oursAcked, http)
	g.least("P5", "confirmed-16", "× JetStream at its best", 4.5, oursAcked, sync, async)
	g.least("P5", "confirmed-16", "× HTTP", 4.5, oursAcked, http)
}

func (g *goals) roundTrips() {
	for _, c := range []string{"roundtrip-one", "roundtrip-two"} {
		g.compare("P6", c, "p50 × raw TCP ping-pong", 1.5, true, drive.P50, peers.Handled.Name, peers.PingPong.Name)
		g.compare("P6", c, "p99 × raw TCP ping-pong", 3.5, true, drive.P99, peers.Handled.Name, peers.PingPong.Name)
		g.compare("P6", c, "p50 × HTTP", 0.5, true, drive.P50, peers.Handled.Name, peers.HTTP.Name)
	}
}

func (g *goals) growth() {
	first, last := strconv.Itoa(grown[0]), grown[1:]
	for _, c := range []string{"connections", "topics"} {
		for _, n := range last {
			g.least("P9", c, fmt.Sprintf("throughput of %d × of 1", n), 0.7, strconv.Itoa(n), first)
		}
	}
	g.least("P9", "metadata", "3 metadata entries × none", 0.7, metadata3, noMetadata)
	for _, n := range last {
		g.most("P9", "connections", strconv.Itoa(n), drive.Idle, fmt.Sprintf("KiB at the listener for one of %d idle connections", n), 6, 1<<10)
	}
	g.most("P9", "idle", "declared", drive.Idle, "KiB at the listener for an idle topic", 1, 1<<10)
}

// allocsPublishing is drive.Allocations without those of making the message.
const allocsPublishing = "allocations_of_publish"

// subtractMaking adds that figure.
func (r *report) subtractMaking() {
	c := r.Results["apart-1"]
	if c == nil {
		return
	}
	for _, v := range c.Figures[ours256][drive.Allocations] {
		c.add(ours256, drive.Figures{allocsPublishing: max(v-r.Making, 0)})
	}
}
