package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/recovery"
)

// modules are those whose versions matter besides our own.
var modules = []string{"github.com/nats-io/nats-server/v2", "github.com/nats-io/nats.go", "github.com/hashicorp/raft-wal"}

// report is what is known at the end.
type report struct {
	Facts       measure.Facts     `json:"facts"`
	Rounds      int               `json:"rounds"`
	TurnSeconds float64           `json:"turn_seconds"`
	Throughput  []throughput      `json:"throughput"`
	Opened      []recovery.Opened `json:"opened"`
	Away        recovery.Away     `json:"away"`
}

// throughput is one contest, by contestant.
type throughput struct {
	Senders int                       `json:"senders"`
	Rates   map[string]measure.Spread `json:"messages_per_second"`
	Ratios  map[string]measure.Spread `json:"outbox_over"`
}

// goals are those of the outbox.
func (r *report) goals() (all []measure.Goal) {
	for _, t := range r.Throughput {
		all = append(all, measure.Goal{What: fmt.Sprintf("× bare group commit, %d publishing", t.Senders), Want: 0.7, Got: t.Ratios[bare].Median})
	}
	for _, t := range r.Throughput {
		if t.Senders == 16 {
			all = append(all, measure.Goal{What: "× JetStream with sync_always, 16 publishing", Want: 5, Got: t.Ratios[synced].Median})
		}
	}
	first, heap := 0.0, int64(0)
	for _, o := range r.Opened {
		first, heap = max(first, o.FirstSeconds), max(heap, o.HeapRead)
	}
	all = append(all,
		measure.Goal{What: "seconds from opening after a crash to the first message, at worst", Want: 2, Got: first, AtMost: true},
		measure.Goal{What: "MiB of heap added by reading all after a crash, at worst", Want: 8, Got: mib(heap), AtMost: true})
	if marks := r.Away.Marks; len(marks) > 2 { // the first is of an empty outbox, whose cache fills until the second
		grown := marks[len(marks)-1].Heap - marks[1].Heap
		all = append(all,
			measure.Goal{What: fmt.Sprintf("MiB of heap added from %s to %s messages that wait",
				measure.Figure(float64(marks[1].Pending)), measure.Figure(float64(marks[len(marks)-1].Pending))), Want: 1, Got: mib(grown), AtMost: true},
			measure.Goal{What: "seconds from opening to the first message at a subscriber", Want: 2, Got: r.Away.FirstSeconds, AtMost: true})
	}
	return all
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// MarshalJSON adds the goals.
func (r *report) MarshalJSON() ([]byte, error) {
	type plain report
	return json.Marshal(struct {
		*plain
		Goals []measure.Goal `json:"goals"`
	}{(*plain)(r), r.goals()})
}

func (r *report) markdown() string {
	var b strings.Builder
	f := r.Facts
	fmt.Fprintf(&b, "%s, %d cores, %s, %s, %s, GOGC=%s, load %s", f.CPU, f.Cores, f.System, f.FileSystem, f.Go, f.GOGC, f.Load)
	for _, m := range slices.Sorted(maps.Keys(f.Modules)) {
		fmt.Fprintf(&b, ", %s %s", strings.TrimPrefix(m, "github.com/"), f.Modules[m])
	}
	fmt.Fprintf(&b, ".\n\n%d rounds, turns of %g s. Median (least–most) of the rounds; ratios are of turns in the same round.\n\n", r.Rounds, r.TurnSeconds)
	b.WriteString(r.rates() + "\n" + r.ratios() + "\n" + r.crashes() + "\n" + r.absence() + "\n" + r.verdicts())
	return b.String()
}

func (r *report) rates() string {
	t := measure.Table{Head: []string{"durable messages/s, 110 bytes", bare, ours, synced, unsynced + " (not durable)"}}
	for _, c := range r.Throughput {
		t.Add(fmt.Sprintf("%d publishing", c.Senders), c.Rates[bare].String(), c.Rates[ours].String(), c.Rates[synced].String(), c.Rates[unsynced].String())
	}
	return t.Markdown()
}

func (r *report) ratios() string {
	t := measure.Table{Head: []string{"outbox ×", bare, synced, unsynced + " (not durable)"}}
	for _, c := range r.Throughput {
		t.Add(fmt.Sprintf("%d publishing", c.Senders), c.Ratios[bare].String(), c.Ratios[synced].String(), c.Ratios[unsynced].String())
	}
	return t.Markdown()
}

func (r *report) crashes() string {
	t := measure.Table{Head: []string{"opened after a crash", "first read after", "heap added: opened", "all read", "at most, with garbage", "read, messages/s"}}
	for _, o := range r.Opened {
		t.Add(fmt.Sprintf("%s messages, %d to a call", measure.Figure(float64(o.Pending)), o.Batch), measure.Figure(o.FirstSeconds)+" s",
			measure.MiB(o.HeapOpened), measure.MiB(o.HeapRead), measure.MiB(o.HeapPeak), measure.Figure(o.ReadPerSecond))
	}
	return t.Markdown()
}

func (r *report) absence() string {
	t := measure.Table{Head: []string{"publisher whose peer is away", "heap", "at most, with garbage"}}
	for _, m := range r.Away.Marks {
		peak := "–" // nothing was published yet
		if m.Pending > 0 {
			peak = measure.MiB(m.Peak)
		}
		t.Add(measure.Figure(float64(m.Pending))+" messages wait", measure.MiB(m.Heap), peak)
	}
	return t.Markdown() + fmt.Sprintf("\nAfter a crash of that publisher, with its peer back: %s s from opening the outbox to the first message at a subscriber; "+
		"%s messages, each once and in order, at %s a second; heap added %s, at most %s with garbage.\n",
		measure.Figure(r.Away.FirstSeconds), measure.Figure(float64(r.Away.Delivered)), measure.Figure(r.Away.ArrivedPerSecond),
		measure.MiB(r.Away.HeapDelivered), measure.MiB(r.Away.HeapPeak))
}

func (r *report) verdicts() string {
	t := measure.Table{Head: []string{"goal", ""}}
	for _, g := range r.goals() {
		t.Add(g.What, g.Verdict())
	}
	return t.Markdown()
}
