package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

const messageBytes = 110

// Contestants that are not called as their peer is.
const (
	ours1      = "buffstreams, MaxInFlight 1"
	ours256    = "buffstreams, MaxInFlight 256"
	oursAcked  = "buffstreams"
	natsThree  = "NATS core, server as a third process"
	alone      = "the fast topic alone"
	besideSlow = "beside a slow topic"
	noMetadata = "no metadata"
	metadata3  = "3 entries"
)

// turn measures once, for about d.
type turn func(ctx context.Context, d time.Duration) (drive.Figures, error)

// contestant is one of those that take turns.
type contestant struct {
	name string
	turn turn
}

// contest is a task and those who compete at it.
type contest struct {
	name, title string
	contestants []contestant
	rare        bool // too long for every round
}

// shape is how messages are published.
type shape struct {
	name, title string
	load        drive.Load
}

var shapes = []shape{
	{"1", "1 publisher, message by message", drive.Load{Publishers: 1, Batch: 1}},
	{"100", "1 publisher, batches of 100", drive.Load{Publishers: 1, Batch: 100}},
	{"16", "16 publishers, message by message", drive.Load{Publishers: 16, Batch: 1}},
}

// stage makes turns, and sees to it that none meets what another has left at a broker.
type stage struct {
	dir   string
	redis string // address; empty if there is none
	turns int
}

func (s *stage) setup(setup peers.Setup) peers.Setup {
	s.turns++
	setup.Name = fmt.Sprintf("bench_%d", s.turns)
	if setup.Size == 0 {
		setup.Size = messageBytes
	}
	if setup.InFlight == 0 {
		setup.InFlight = 1
	}
	return setup
}

// with prepares a turn of a peer, and cleans up behind it.
func (s *stage) with(p peers.Peer, setup peers.Setup, run func(context.Context, peers.Setup, time.Duration) (drive.Figures, error)) turn {
	return func(ctx context.Context, d time.Duration) (_ drive.Figures, err error) {
		setup := s.setup(setup)
		switch p.Name {
		case peers.JetStream.Name, peers.JetStreamAsync.Name, peers.JetStreamEmbedded.Name, peers.JetStreamFeed.Name, peers.Bridge.Name:
			if setup.Dir, err = os.MkdirTemp(s.dir, "jetstream-"); err != nil {
				return nil, err
			}
			defer func() { _ = os.RemoveAll(setup.Dir) }() // it lies within a directory that is removed at the end
		case peers.Redis.Name:
			setup.Broker = s.redis
		}
		return run(ctx, setup, d)
	}
}

// stream is a contestant at throughput within this process.
func (s *stage) stream(name string, p peers.Peer, setup peers.Setup, l drive.Load) contestant {
	return contestant{name, s.with(p, setup, func(ctx context.Context, setup peers.Setup, d time.Duration) (drive.Figures, error) {
		return drive.Stream(ctx, p, setup, l, d)
	})}
}

// apart is a contestant at throughput between processes.
func (s *stage) apart(name string, p peers.Peer, setup peers.Setup, a drive.Apart, l drive.Load) contestant {
	return contestant{name, s.with(p, setup, func(ctx context.Context, setup peers.Setup, d time.Duration) (drive.Figures, error) {
		return drive.StreamApart(ctx, p, setup, a, l, d)
	})}
}

func (s *stage) contests() []contest {
	all := s.plain()
	for _, sh := range shapes {
		all = append(all, s.async(sh))
	}
	all = append(all, s.besides())
	all = append(all, s.apartContests()...)
	all = append(all, s.router())
	all = append(all, s.confirmed()...)
	all = append(all, s.roundTrips()...)
	all = append(all, s.payloads()...)
	all = append(all, s.metadata(), s.slow())
	all = append(all, s.embedded()...)
	all = append(all, s.routes(), s.hooks())
	all = append(all, s.batches()...)
	all = append(all, s.bridge())
	return append(all, s.growth()...)
}

func (s *stage) plain() (all []contest) {
	for _, n := range []int{1, 16} {
		l := drive.Load{Publishers: n, Reuse: true}
		all = append(all, contest{
			name: fmt.Sprintf("plain-%d", n), title: fmt.Sprintf("%d writing", n),
			contestants: []contestant{
				s.stream(peers.Plain.Name, peers.Plain, peers.Setup{}, l),
				s.stream(peers.BuffStreams.Name, peers.BuffStreams, peers.Setup{}, l),
				s.stream(peers.Frames.Name, peers.Frames, peers.Setup{}, drive.Load{Reuse: true}),
			},
		})
	}
	return all
}

func (s *stage) async(sh shape) contest {
	return contest{name: "async-" + sh.name, title: sh.title, contestants: []contestant{
		s.stream(ours1, peers.Enqueued, peers.Setup{}, sh.load),
		s.stream(ours256, peers.Enqueued, peers.Setup{InFlight: 256}, sh.load),
		s.stream(peers.GoChannel.Name, peers.GoChannel, peers.Setup{}, sh.load),
		s.stream(peers.GoChannelBlock.Name, peers.GoChannelBlock, peers.Setup{}, sh.load),
		s.stream(peers.NATSCore.Name, peers.NATSCore, peers.Setup{}, sh.load),
		s.stream(peers.NATSGo.Name, peers.NATSGo, peers.Setup{}, sh.load),
		s.stream(peers.GRPC.Name, peers.GRPC, peers.Setup{}, sh.load),
	}}
}

// heap is what an application may hold.
const heap = 64 << 20

// besides is a contest in which the collector is nobody's: with so much besides it has little to do.
func (s *stage) besides() contest {
	one := shapes[0].load
	return contest{name: "heap", title: "1 publisher, message by message", contestants: []contestant{
		s.stream(ours1, peers.Enqueued, peers.Setup{Heap: heap}, one),
		s.stream(ours256, peers.Enqueued, peers.Setup{Heap: heap, InFlight: 256}, one),
		s.stream(peers.GoChannel.Name, peers.GoChannel, peers.Setup{Heap: heap}, one),
		s.stream(peers.NATSCore.Name, peers.NATSCore, peers.Setup{Heap: heap}, one),
		s.stream(peers.NATSGo.Name, peers.NATSGo, peers.Setup{Heap: heap}, one),
	}}
}

func (s *stage) apartContests() (all []contest) {
	for _, sh := range shapes[:2] {
		all = append(all, contest{name: "apart-" + sh.name, title: sh.title, contestants: []contestant{
			s.apart(ours256, peers.Enqueued, peers.Setup{InFlight: 256}, drive.Apart{}, sh.load),
			s.apart(peers.NATSCore.Name, peers.NATSCore, peers.Setup{}, drive.Apart{}, sh.load),
			s.apart(natsThree, peers.NATSCore, peers.Setup{}, drive.Apart{Broker: true}, sh.load),
		}})
	}
	return all
}

func (s *stage) router() contest {
	one := drive.Load{}
	return contest{name: "router", title: "1 publisher, message by message", contestants: []contestant{
		s.stream(ours256, peers.Enqueued, peers.Setup{Router: true, InFlight: 256}, one),
		s.stream(ours1, peers.Enqueued, peers.Setup{Router: true}, one),
		s.stream(peers.GoChannel.Name, peers.GoChannel, peers.Setup{Router: true}, one),
		s.stream(peers.NATSCore.Name, peers.NATSCore, peers.Setup{Router: true}, one),
		s.stream(peers.Bare.Name, peers.Bare, peers.Setup{Router: true}, one),
	}}
}

func (s *stage) confirmed() (all []contest) {
	for _, sh := range shapes[1:] {
		c := contest{name: "confirmed-" + sh.name, title: sh.title, contestants: []contestant{
			s.stream(oursAcked, peers.Received, peers.Setup{InFlight: 256}, sh.load),
			s.stream(peers.JetStream.Name, peers.JetStream, peers.Setup{}, sh.load),
			s.stream(peers.JetStreamAsync.Name, peers.JetStreamAsync, peers.Setup{}, sh.load),
			s.stream(peers.HTTP.Name, peers.HTTP, peers.Setup{}, sh.load),
		}}
		if s.redis != "" {
			c.contestants = append(c.contestants, s.stream(peers.Redis.Name, peers.Redis, peers.Setup{}, sh.load))
		}
		all = append(all, c)
	}
	return all
}

func (s *stage) roundTrips() []contest {
	here, there := contest{name: "roundtrip-one", title: "one process"}, contest{name: "roundtrip-two", title: "two processes"}
	for _, p := range []peers.Peer{peers.Handled, peers.PingPong, peers.HTTP, peers.GoChannelBlock} {
		here.contestants = append(here.contestants, contestant{p.Name, s.with(p, peers.Setup{},
			func(ctx context.Context, setup peers.Setup, d time.Duration) (drive.Figures, error) {
				return drive.RoundTrip(ctx, p, setup, d)
			})})
	}
	for _, p := range []peers.Peer{peers.Handled, peers.PingPong, peers.HTTP} {
		there.contestants = append(there.contestants, contestant{p.Name, s.with(p, peers.Setup{},
			func(ctx context.Context, setup peers.Setup, d time.Duration) (drive.Figures, error) {
				return drive.RoundTripApart(ctx, p, setup, d)
			})})
	}
	return []contest{here, there}
}

// sizes are the large payloads.
var sizes = []struct {
	name  string
	bytes int
}{{"16 KiB", 16 << 10}, {"64 KiB", 64 << 10}, {"1 MiB", 1 << 20}}

func (s *stage) payloads() (all []contest) {
	l := drive.Load{Reuse: true, WarmUp: 256 << 20}
	for _, size := range sizes {
		all = append(all, contest{name: "payload-" + size.name, title: size.name, contestants: []contestant{
			s.stream(ours256, peers.Enqueued, peers.Setup{Size: size.bytes, InFlight: 256}, l),
			s.stream(peers.Plain.Name, peers.Plain, peers.Setup{Size: size.bytes}, l),
			s.stream(peers.BigFrames.Name, peers.BigFrames, peers.Setup{Size: size.bytes}, l),
		}})
	}
	return all
}

func (s *stage) metadata() contest {
	return contest{name: "metadata", title: "1 publisher, message by message", contestants: []contestant{
		s.stream(noMetadata, peers.Enqueued, peers.Setup{InFlight: 256}, drive.Load{}),
		s.stream(metadata3, peers.Enqueued, peers.Setup{InFlight: 256, Metadata: 3}, drive.Load{}),
	}}
}

// slowHandler is how long the handler of the slow topic takes.
const slowHandler = 20 * time.Millisecond

func (s *stage) slow() contest {
	p := peers.Enqueued
	run := func(ctx context.Context, setup peers.Setup, d time.Duration) (drive.Figures, error) {
		return drive.BesideSlow(ctx, p, setup, drive.Load{}, d)
	}
	return contest{name: "slow", title: "one connection", contestants: []contestant{
		{alone, s.with(p, peers.Setup{}, run)},
		{besideSlow, s.with(p, peers.Setup{Slow: slowHandler}, run)},
	}}
}
