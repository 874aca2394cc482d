package main

import (
	"context"
	"strconv"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// grown is how many connections and topics there are in the end, with a step between.
var grown = []int{1, 1_000, 10_000}

// growing is the load of growth: enough goroutines that wait for confirmation to keep both ends busy, also where each
// of them has a connection of its own.
var growing = drive.Load{Publishers: 64, Batch: 100, Primed: true}

func (s *stage) growth() []contest {
	connections := contest{name: "connections", title: "connections", rare: true}
	topics := contest{name: "topics", title: "topics on one connection", rare: true}
	for _, n := range grown {
		l := growing
		l.Lanes = max(n, l.Publishers)
		connections.contestants = append(connections.contestants, contestant{strconv.Itoa(n), s.connections(n)})
		topics.contestants = append(topics.contestants, s.stream(strconv.Itoa(n), peers.Received, peers.Setup{Topics: n}, l))
	}
	idle := contest{name: "idle", title: "topics", rare: true, contestants: []contestant{{
		"declared", func(context.Context, time.Duration) (drive.Figures, error) {
			return drive.IdleTopics(grown[len(grown)-1])
		},
	}}}
	return []contest{connections, topics, idle}
}

// connections lets the goroutines go round n connections.
func (s *stage) connections(n int) turn {
	return s.with(peers.Received, peers.Setup{}, func(ctx context.Context, setup peers.Setup, d time.Duration) (drive.Figures, error) {
		return drive.Connections(ctx, peers.Received, setup, n, growing, d)
	})
}
