package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// section is a part of the page: contests that are shown as one table.
type section struct {
	id, title, text string
	contests        []string
	figure          string // of the table's cells
	over            string // whom ratios are given to
	rivals          bool   // somebody else takes part
	share           bool   // ratios are what of that one each of the others reaches, not how many times more it does
}

var sections = []section{
	{
		"P1", "Plain wire", "`pool` beside a writer that works as BuffStreams does, and beside the physical limit. Messages/s.",
		[]string{"plain-1", "plain-16"}, drive.Rate, peers.Plain.Name, true, false,
	},
	{
		"P2, P3", "From Publish to Ack", "`ConfirmEnqueued`, both ends in one process, over loopback TCP. With MaxInFlight 1 there is one unacked message at a time, " +
			"which is the default. GoChannel and NATS core promise less: see the peers below. Messages/s.",
		[]string{"async-1", "async-100", "async-16"}, drive.Rate, ours256, true, false,
	},
	{
		"P2, P3", fmt.Sprintf("In an application that holds %d MiB", heap>>20), "The same in a process with a heap of its own, where the collector has little to do for anybody. " +
			"Messages/s.",
		[]string{"heap"}, drive.Rate, ours256, true, false,
	},
	{
		"P3", "Two processes", "The publisher in one process, the subscriber in another. nats-server runs beside the subscriber, which is closest to a " +
			"subscriber that listens, or as a third process. Messages/s.",
		[]string{"apart-1", "apart-100"}, drive.Rate, ours256, true, false,
	},
	{
		"P4", "Behind a Router", "`message.Router` with a handler that does nothing. Its ceiling is a Router that a bare channel feeds, without any transport. Messages/s.",
		[]string{"router"}, drive.Rate, ours256, true, false,
	},
	{
		"P5", "Confirmed", "`ConfirmReceived`: Publish returns when the subscriber's process holds the messages. Messages/s.",
		[]string{"confirmed-100", "confirmed-16"}, drive.Rate, oursAcked, true, false,
	},
	{
		"P6", "Round trip, median", "One `ConfirmHandled` Publish after the other: there, handled, acked, and back. µs; less is better.",
		[]string{"roundtrip-one", "roundtrip-two"}, drive.P50, peers.Handled.Name, true, false,
	},
	{
		"P6", "Round trip, 99th percentile", "The same. µs; less is better.",
		[]string{"roundtrip-one", "roundtrip-two"}, drive.P99, peers.Handled.Name, true, false,
	},
	{
		"P8", "Large payloads", "Messages/s, after 256 MiB that do not count. Senders use their payloads again; raw frames hand them to the kernel without a copy or a checksum.",
		[]string{"payload-16 KiB", "payload-64 KiB", "payload-1 MiB"}, drive.Rate, ours256, true, false,
	},
	{
		"P9", "Growth", "`ConfirmReceived`, MaxInFlight 1, 64 goroutines with batches of 100 go round the connections, each of a publisher of its own, " +
			"or round the topics of one connection. Messages/s.",
		[]string{"connections", "topics"}, drive.Rate, "1", false, true,
	},
	{
		"P9", "Metadata", "`ConfirmEnqueued`, MaxInFlight 256. Making the metadata counts. Messages/s.",
		[]string{"metadata"}, drive.Rate, metadata3, false, false,
	},
	{
		"P10", "A slow topic", "`ConfirmEnqueued`, MaxInFlight 1. The handler of the other topic on the same connection takes 20 ms a message, and its window is full. Messages/s.",
		[]string{"slow"}, drive.Rate, besideSlow, false, false,
	},
	{
		"P11", "Embedded nats-server", "What a program with no other process to talk to yet could take in: nats-server inside it, by watermill-nats, client and server over a pipe " +
			"in memory. Between processes it needs a socket, as above. This library goes over loopback TCP here too. Core loses what its subscriber is too slow for, JetStream stores in files. Messages/s.",
		[]string{"embedded-1", "embedded-100"}, drive.Rate, ours256, true, false,
	},
	{
		"P12", "Routes", fmt.Sprintf("`ConfirmEnqueued`, MaxInFlight 256, an order key with %d values. One address, or three listeners in the same process: what a "+
			"policy and three connections cost, not what three machines bring. Messages/s.", orderKeys),
		[]string{"routes"}, drive.Rate, routeOfOne, false, true,
	},
	{
		"P13", "Hooks", "`ConfirmEnqueued`, MaxInFlight 256. At either end none, or one that has a method for everything and counts. Messages/s.",
		[]string{"hooks"}, drive.Rate, noHooks, false, true,
	},
	{
		"P14", "Batches", "`ConfirmEnqueued`, MaxInFlight 256, one publisher. The handler is called for each message, or by `batch.Run` for up to 100. Messages/s.",
		[]string{"batches-0", "batches-20"}, drive.Rate, oneByOne, false, true,
	},
	{
		"P15", "Into JetStream", fmt.Sprintf("An embedded JetStream in files, and a consumer of it that counts. By the bridge, at which messages arrive over a unix socket and which acks what is stored; or by "+
			"nats.go's own publisher from memory, which no other process can use. Either has up to %d messages on their way, with %d values of an order key. Messages/s.", 4096, orderKeys),
		[]string{"bridge"}, drive.Rate, peers.Bridge.Name, true, false,
	},
}

func (r *report) page() string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nWritten by `go run ./benchmarks/compare --out docs`; do not edit.\n\n")
	b.WriteString(r.how())
	b.WriteString("\n## Goals\n\n" + r.verdicts() + "\n")
	b.WriteString(r.losses())
	for _, s := range sections {
		b.WriteString(r.section(s))
	}
	b.WriteString(r.allocs() + r.memory() + r.peers())
	return b.String()
}

func (r *report) how() string {
	f := r.Facts
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores, %s, %s, GOGC=%s, load %s when it began", f.CPU, f.Cores, f.System, f.Go, f.GOGC, f.Load)
	for _, m := range slices.Sorted(maps.Keys(f.Modules)) {
		fmt.Fprintf(&b, ", %s %s", m[strings.Index(m, "/")+1:], f.Modules[m])
	}
	if r.Redis != "" {
		b.WriteString(", redis-server " + r.Redis)
	}
	fmt.Fprintf(&b, ".\n\nOne run. All contestants take turns of %v, round by round, %d rounds (growth: %v, %d rounds). ",
		r.Plan.Turn, r.Plan.Rounds, r.Plan.RareTurn, r.Plan.RareRounds)
	b.WriteString("Cells are medians with the least and the most in brackets. Ratios are of turns of the same round, because the machine drifts; " +
		"believe ratios, not rates. Payloads have 110 bytes, metadata is empty unless said otherwise, and everybody makes a fresh `message.Message` with a UUID for each. " +
		"Every message is counted where it arrives; a run in which one is missing, repeated or damaged fails.\n")
	if r.Redis == "" {
		b.WriteString("\nNo redis-server could be started, so Redis streams are missing.\n")
	}
	return b.String()
}

func (r *report) verdicts() string {
	t := measure.Table{Head: []string{"#", "what", "goal", "measured", "reached"}}
	for _, g := range r.reach {
		bound, reached := "≥ ", "**no**"
		if g.AtMost {
			bound = "≤ "
		}
		if g.Reached {
			reached = "yes"
		}
		t.Add(g.ID, g.What, bound+measure.Figure(g.Want), g.Spread.String(), reached)
	}
	return t.Markdown()
}

// losses says where somebody else is ahead. The goals that were missed stand above it.
func (r *report) losses() string {
	var lines []string
	for _, s := range sections {
		if !s.rivals {
			continue
		}
		for _, name := range s.contests {
			lines = append(lines, r.ahead(s, name)...)
		}
	}
	missed := 0
	for _, g := range r.reach {
		if !g.Reached {
			missed++
		}
	}
	text := fmt.Sprintf("### Where we lose\n\n%d of %d goals are missed.", missed, len(r.reach))
	if len(lines) > 0 {
		text += " These are ahead of us:\n\n- " + strings.Join(lines, "\n- ")
	}
	return text + "\n\n"
}

// ourOwn are the contestants that are this library.
var ourOwn = map[string]bool{
	ours1: true, ours256: true, oursAcked: true, peers.Handled.Name: true, peers.Plain.Name: true, peers.Bridge.Name: true,
}

// ahead lists those that are better than we are in a contest.
func (r *report) ahead(s section, name string) (lines []string) {
	c := r.Results[name]
	if c == nil {
		return nil
	}
	us := c.of(s.over, s.figure).Median
	for _, who := range c.Contestants {
		them := c.of(who, s.figure).Median
		better := them > us
		if s.figure == drive.P50 || s.figure == drive.P99 {
			better = them < us
		}
		if better && !ourOwn[who] && c.of(who, s.figure).Rounds > 0 {
			lines = append(lines, fmt.Sprintf("%s, %s: %s %s, we %s.", s.title, c.Title, who, measure.Figure(them), measure.Figure(us)))
		}
	}
	return lines
}

func (r *report) section(s section) string {
	var present []*result
	for _, name := range s.contests {
		if c := r.Results[name]; c != nil {
			present = append(present, c)
		}
	}
	if len(present) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "## %s (%s)\n\n%s\n\n", s.title, s.id, s.text)
	t := measure.Table{Head: []string{""}}
	for _, c := range present {
		t.Head = append(t.Head, c.Title, s.heading())
	}
	for _, who := range present[0].Contestants {
		row := []string{who}
		for _, c := range present {
			row = append(row, cell(c.of(who, s.figure)), s.against(c, who))
		}
		t.Add(row...)
	}
	b.WriteString(t.Markdown() + "\n")
	return b.String()
}

// cell is empty where somebody could not take part.
func cell(s measure.Spread) string {
	if s.Rounds == 0 {
		return "–"
	}
	return s.String()
}

func (s section) heading() string {
	if s.share {
		return "× " + s.over
	}
	return s.over + " ×"
}

// against is how much more we reach than somebody else, or what of that somebody does.
func (s section) against(c *result, who string) string {
	of, to := s.over, who
	if s.share {
		of, to = who, s.over
	}
	ratio, err := c.ratio(s.figure, of, to)
	if err != nil || of == to {
		return ""
	}
	return ratio.String()
}

func (r *report) allocs() string {
	t := measure.Table{Head: []string{"allocations a message, both ends, with making it", "1 publisher", "batches of 100", "16 publishers"}}
	c := r.Results["async-1"]
	if c == nil {
		return ""
	}
	for _, who := range c.Contestants {
		row := []string{who}
		for _, sh := range shapes {
			if other := r.Results["async-"+sh.name]; other != nil {
				row = append(row, measure.Figure(other.of(who, drive.Allocations).Median))
			} else {
				row = append(row, "")
			}
		}
		t.Add(row...)
	}
	text := "## Allocations (P7)\n\n" + t.Markdown()
	if apart := r.Results["apart-1"]; apart != nil {
		text += fmt.Sprintf("\nPublisher and subscriber apart, from the turns in two processes, each counted by its own runtime: the publisher's process allocates %s objects a message, "+
			"of which %s are the application's (the same loop with a publisher that drops everything); that leaves %s for `Publish`. The subscriber's process allocates %s.\n",
			measure.Figure(apart.of(ours256, drive.Allocations).Median), measure.Figure(r.Making),
			measure.Figure(apart.of(ours256, allocsPublishing).Median), measure.Figure(apart.of(ours256, drive.ReceiverAllocs).Median))
	}
	return text + "\n"
}

func (r *report) memory() string {
	t := measure.Table{Head: []string{"idle, at the listener", "heap and stacks, KiB each", "resident, KiB each"}}
	row := func(name, contest, who string) {
		if c := r.Results[contest]; c != nil {
			kib := func(figure string) string { return measure.Figure(c.of(who, figure).Median / 1024) }
			t.Add(name, kib(drive.Idle), kib(drive.IdleResident))
		}
	}
	row("one of 1,000 connections", "connections", "1000")
	row("one of 10,000 connections", "connections", "10000")
	row("one of 10,000 declared topics", "idle", "declared")
	if len(t.Rows) == 0 {
		return ""
	}
	return "## Memory (P9)\n\nOf a listener in a process of its own, after every connection has carried a message and 1.5 s of silence: live objects and goroutine stacks after a collection.\n\n" + t.Markdown() + "\n"
}

func (r *report) peers() string {
	t := measure.Table{Head: []string{"peer", "when Publish or Send has returned", "configuration"}}
	for _, p := range peers.All() {
		if p.Name == peers.Redis.Name && r.Redis == "" {
			continue
		}
		settings := p.Settings
		if p.Window > 0 {
			settings += fmt.Sprintf("; at most %d messages on their way, as it would not hold back its publisher", p.Window)
		}
		t.Add(p.Name, p.Guarantee, settings)
	}
	return "## Peers\n\n" + t.Markdown()
}
