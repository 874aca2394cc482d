package session

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// seedVariable names the environment variable that replays one seed of the simulation. The order of maps is not the
// seed's, so that a replay takes several runs.
const seedVariable = "SESSION_SEED"

// TestSimulation lets a client and a remote do random things over a wire that breaks, then heals it and looks at the
// account: every message was settled, none twice to one receiver's memory, all in order. The remote checks what it gets
// against its own books while it goes.
func TestSimulation(t *testing.T) {
	runs, seed := 2000, uint64(0)
	if testing.Short() {
		runs = 200
	}
	next := func() uint64 { seed++; return seed - 1 }
	if s := os.Getenv(seedVariable); s != "" {
		fixed, err := strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
		runs, next = 100, func() uint64 { return fixed }
	}
	for range runs {
		seed := next()
		if err := simulate(t, seed); err != nil {
			t.Fatalf("%v (replay it with %s=%d)", err, seedVariable, seed)
		}
	}
}

// simulation is one run. Its waiters are checked at the moment at which they finish.
type simulation struct {
	*pair
	rng     *rand.Rand
	scale   int // of the messages' sizes
	topics  []string
	waiting []*simWaiter
	up      bool
	room    Amount
	budget  *flow.Budget
	memory  int
	total   map[string]uint64 // messages enqueued
}

type simWaiter struct {
	*Waiter
	topic string
}

func simulate(t *testing.T, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 2))
	scale := 1
	if seed%8 == 0 { // messages so large that there are many chunks
		scale = 60
	}
	memory := scale * (1000 + rng.IntN(100_000))
	budget := flow.NewBudget(memory)
	room := Amount{Messages: 1 + rng.IntN(60), Bytes: scale * (300 + rng.IntN(8000))}
	window := Window{Messages: 1 + rng.IntN(80), Bytes: scale * (100 + rng.IntN(10_000)), Budget: budget}
	s := &simulation{
		pair: newPair(t, window, room), rng: rng, scale: scale, room: room, budget: budget, memory: memory,
		total: map[string]uint64{},
	}
	s.limit = 1 + rng.IntN(5000)
	for i := range 1 + rng.IntN(3) {
		s.topics = append(s.topics, fmt.Sprintf("t%d", i))
	}
	for step := range 300 {
		if err := s.step(); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if err := s.check(); err != nil {
			return fmt.Errorf("after step %d: %w", step, err)
		}
		if step%8 > 0 { // the books take as long as all else
			continue
		}
		if err := checkBooks(s.client); err != nil {
			return fmt.Errorf("after step %d: %w", step, err)
		}
	}
	return s.finish()
}

func (s *simulation) topic() string { return s.topics[s.rng.IntN(len(s.topics))] }

// step does one thing. What happens often comes first.
func (s *simulation) step() error {
	switch n := s.rng.IntN(100); {
	case n < 18:
		s.enqueueSome()
	case n < 38:
		s.output()
	case n < 55:
		return s.deliverUp(1 + s.rng.IntN(4))
	case n < 70:
		return s.deliverDown(1 + s.rng.IntN(4))
	case n < 82:
		s.handleSome()
	case n < 88:
		s.remote.ack()
	case n < 90:
		s.topUp()
	case n < 92:
		s.await()
	case n < 94:
		s.now = s.now.Add(time.Duration(s.rng.IntN(400)) * time.Millisecond)
		return s.client.Tick(s.now, late)
	case n < 96 && s.up:
		s.cut()
		s.up = false
	case n < 97:
		s.cut()
		s.remote.restart(s.rng.IntN(2) == 0)
		s.up = false
	case !s.up:
		s.connect()
		s.up = true
	}
	return nil
}

func (s *simulation) enqueueSome() {
	sizes := make([]int, 1+s.rng.IntN(12))
	for i := range sizes {
		if sizes[i] = s.rng.IntN(60); s.rng.IntN(200) == 0 {
			sizes[i] = 250
		}
		sizes[i] *= s.scale
	}
	topic := s.topic()
	s.total[topic] += uint64(s.enqueue(topic, sizes...))
}

// handleSome settles and rejects what the remote holds, in any order.
func (s *simulation) handleSome() {
	in := s.remote.stream(s.topic())
	for range 1 + s.rng.IntN(6) {
		if len(in.order) == 0 {
			return
		}
		seq := in.order[s.rng.IntN(len(in.order))]
		if s.rng.IntN(3) > 0 { // mostly from the front
			seq = in.order[s.rng.IntN(1+len(in.order)/4)]
		}
		if s.rng.IntN(12) == 0 {
			s.remote.reject(in, seq)
		} else {
			s.remote.settle(in, seq)
		}
	}
	s.remote.serve()
}

// topUp gives credit that no stream asked for.
func (s *simulation) topUp() {
	in := s.remote.stream(s.topic())
	a := Amount{Messages: 1 + s.rng.IntN(5), Bytes: s.scale * (1 + s.rng.IntN(300))}
	if in.online && a.Messages <= s.remote.room.Messages && a.Bytes <= s.remote.room.Bytes {
		s.remote.grant(in, a)
	}
}

func (s *simulation) await() {
	topic := s.topic()
	last := s.total[topic]
	if last == 0 {
		return
	}
	first := last - min(last-1, uint64(s.rng.IntN(5)))
	level := Level(1 + s.rng.IntN(2))
	s.waiting = append(s.waiting, &simWaiter{s.wait(topic, level, first, last), topic})
}

// check looks at what must hold at any time.
func (s *simulation) check() error {
	for _, topic := range s.topics {
		o, in := s.client.Stream(topic), s.remote.stream(topic)
		if o.pending > s.client.cfg.Window.Messages {
			return fmt.Errorf("%s keeps %d messages in a window of %d", topic, o.pending, s.client.cfg.Window.Messages)
		}
		if next := o.settled.Next(); next > 1 && !in.finished[next-1] && !in.refused[next-1] {
			return fmt.Errorf("%s/%d is settled at the sender and nowhere else", topic, next-1)
		}
	}
	if s.remote.room.Messages < 0 || s.remote.room.Bytes < 0 ||
		s.remote.room.Messages > s.room.Messages || s.remote.room.Bytes > s.room.Bytes {
		return fmt.Errorf("the remote's window has %+v of %+v", s.remote.room, s.room)
	}
	kept := s.waiting[:0]
	for _, w := range s.waiting {
		if !done(w.Waiter) {
			kept = append(kept, w)
			continue
		}
		if err := s.verdict(w); err != nil {
			return err
		}
	}
	s.waiting = kept
	return nil
}

// verdict tells whether a waiter was right to finish.
func (s *simulation) verdict(w *simWaiter) error {
	in := s.remote.stream(w.topic)
	rejected := false
	for seq := w.First; seq <= w.Last; seq++ {
		switch {
		case in.ever[seq] == 0:
			return fmt.Errorf("%s/%d was never received, and its waiter is done", w.topic, seq)
		case w.Level == Handled && !in.finished[seq] && !in.refused[seq]:
			return fmt.Errorf("%s/%d was never handled, and its waiter is done", w.topic, seq)
		}
		rejected = rejected || in.refused[seq]
	}
	if w.Err != nil && !rejected {
		return fmt.Errorf("waiter of %s/%d to %d failed: %w", w.topic, w.First, w.Last, w.Err)
	}
	return nil
}

// finish heals the wire and drains.
func (s *simulation) finish() error {
	if !s.up {
		s.connect()
	}
	for round := 0; s.client.Pending() > 0; round++ {
		if round > 1000 {
			return fmt.Errorf("%d messages are never settled", s.client.Pending())
		}
		s.now = s.now.Add(time.Second) // idle streams give back the credit that the others wait for
		if err := s.client.Tick(s.now, late); err != nil {
			return err
		}
		s.flow()
		for _, topic := range s.topics {
			in := s.remote.stream(topic)
			s.remote.settle(in, in.order...)
		}
		s.remote.serve()
		s.flow()
	}
	if err := s.check(); err != nil {
		return err
	}
	for range 3 {
		s.now = s.now.Add(time.Second)
		if err := s.client.Tick(s.now, late); err != nil {
			return err
		}
		s.flow()
	}
	switch {
	case s.remote.room != s.room:
		return fmt.Errorf("the remote's window got %+v back of %+v", s.remote.room, s.room)
	case s.budget.Free() != s.memory:
		return fmt.Errorf("the client's budget has not got everything back")
	case len(s.waiting) > 0:
		return fmt.Errorf("%d waiters are left", len(s.waiting))
	}
	return s.account()
}

// account compares what was enqueued with what became of it.
func (s *simulation) account() error {
	refused := map[string]int{}
	for _, r := range s.refused {
		refused[fmt.Sprint(r.Topic, "/", r.Sequence)]++
	}
	for _, topic := range s.topics {
		in := s.remote.stream(topic)
		for seq := uint64(1); seq <= s.total[topic]; seq++ {
			told := refused[fmt.Sprint(topic, "/", seq)]
			switch {
			case in.ever[seq] == 0:
				return fmt.Errorf("%s/%d was never delivered", topic, seq)
			case !in.finished[seq] && !in.refused[seq]:
				return fmt.Errorf("%s/%d was settled at the sender only", topic, seq)
			case told > 1, told == 1 && !in.refused[seq], told == 0 && !in.finished[seq]:
				return fmt.Errorf("%s/%d: handled %v, rejected %v, reported %d times",
					topic, seq, in.finished[seq], in.refused[seq], told)
			}
		}
		for i := 1; i < len(in.order); i++ {
			if in.order[i] <= in.order[i-1] {
				return fmt.Errorf("%s: %d was delivered after %d", topic, in.order[i], in.order[i-1])
			}
		}
		if o := s.client.Stream(topic); !o.settled.Covers(1, s.total[topic]) {
			return fmt.Errorf("%s: settled up to %d of %d", topic, o.settled.Next()-1, s.total[topic])
		}
	}
	return nil
}
