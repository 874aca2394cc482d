package sender

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/receiver"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// TestMoveSimulation moves streams between real receivers while everything breaks, heals it, and looks at the account
// (invariant 11): each message was handled, one that came again is marked as one that may, and within a tenure they came in
// order. SIM_SEED repeats a seed, as far as goroutines do; SEEDS runs so many.
func TestMoveSimulation(t *testing.T) {
	otherwise := uint64(400)
	if testing.Short() || testkit.RaceEnabled {
		otherwise = 40
	}
	from, count := testkit.EnvNumber(t, "SIM_FROM", 0), testkit.EnvNumber(t, "SEEDS", otherwise)
	if os.Getenv("SIM_SEED") != "" {
		from, count = testkit.EnvNumber(t, "SIM_SEED", 0), 1
	}
	total := moveCounts{}
	for seed := from; seed < from+count && !t.Failed(); seed++ {
		synctest.Test(t, func(t *testing.T) {
			w := newMoveWorld(t, seed)
			w.run()
			total.add(w.counts)
		})
	}
	t.Logf("%d seeds: %+v", count, total)
	if count >= 400 {
		for name, n := range total {
			require.Positive(t, n, name)
		}
	}
}

type moveCounts map[string]int

func (c moveCounts) add(o moveCounts) {
	for k, n := range o {
		c[k] += n
	}
}

// moveWorld is one run.
type moveWorld struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	groups  []string
	hosts   []*moveHost
	senders []*Sender
	streams []*Stream
	next    int // message
	behind  int // messages up to it are in the stream: those of later calls come behind them
	calls   sync.WaitGroup

	logMu  sync.Mutex // guards the fields below; a leaf
	log    []string
	counts moveCounts

	mu        sync.Mutex
	given     map[string]map[int]*given // by group and message
	callOf    map[int]call              // by message
	published []int
	confirmed []confirmed
}

// call is a call of Publish. Calls that wait for room at the same time have no order.
type call struct {
	first  int // message
	behind int // the last message that was in the stream when it began
}

// given is what became of a message in one group.
type given struct {
	life    *moveLife
	tenure  uint64
	again   bool // it was marked
	handled bool
	back    bool // given back by its member, unhandled
}

type confirmed struct{ first, last int }

// moveHost is an address.
type moveHost struct {
	w    *moveWorld
	net  *simHost
	life *moveLife // nil: nothing runs
	n    int
}

// moveLife is a process at an address.
type moveLife struct {
	host     *moveHost
	receiver *receiver.Receiver
	members  []*dispatch.Member // one of each group
	hand     []handed

	// By group, tenure and stream.
	lastID map[string]map[int]int // by the call's first message
	behind map[string]int         // the highest of the calls of which a message has come
}

type handed struct {
	group string
	id    int
	dispatch.Delivery
	member *dispatch.Member
}

func newMoveWorld(t *testing.T, seed uint64) *moveWorld {
	w := &moveWorld{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), counts: moveCounts{}, given: map[string]map[int]*given{}, callOf: map[int]call{},
		groups: []string{"g"},
	}
	if w.rng.IntN(3) == 0 {
		w.groups = append(w.groups, "h")
	}
	for _, g := range w.groups {
		w.given[g] = map[int]*given{}
	}
	var mover Mover
	budget := flow.NewBudget(1 << 28)
	var numbers atomic.Uint64
	window := 3 + w.rng.IntN(60)
	for i := range 2 + w.rng.IntN(2) {
		h := &moveHost{w: w, net: newSimHost(), n: i}
		w.hosts = append(w.hosts, h)
		h.start()
		cfg := Config{
			Target: netio.Target{Network: "tcp", Address: fmt.Sprintf("127.0.0.1:%d", i+1)}, Dial: h.net.dial,
			MaxMessageSize: 1 << 20, WindowMessages: window, WindowBytes: 1 << 20, HandshakeTimeout: 5 * time.Second,
			WriteTimeout: 10 * time.Second, PingAfter: 10 * time.Second, DeadAfter: 30 * time.Second, ForgetAfter: time.Minute,
			MoveAfter: time.Second, Backoff: func() backoff.BackOff { return netio.NewFullJitter(10*time.Millisecond, 100*time.Millisecond, 2) },
			Identity: session.Identity{Publisher: [16]byte{9}, Epoch: 1}, Budget: budget, Ticker: NewTicker(10 * time.Second),
			NextStream: func() uint64 { return numbers.Add(1) }, Mover: &mover, Logger: watermill.NopLogger{},
		}
		s := New(cfg)
		s.waiters = &sync.Pool{New: newWaiter} // what it has belongs to the bubble
		s.Dial()                               // as for the addresses of a route
		w.senders = append(w.senders, s)
	}
	for range 1 + w.rng.IntN(3) {
		w.streams = append(w.streams, w.anySender().NewStream(StreamConfig{
			Identity: session.Identity{Publisher: [16]byte{1}, Epoch: 1, Secret: [16]byte{2}}, Topic: "t",
			Alternative: w.alternative, Moved: func(m Moved) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.count("moves", 1)
				w.count("marked", m.Repeats)
			},
		}))
	}
	return w
}

func (w *moveWorld) anySender() *Sender { return w.senders[w.rng.IntN(len(w.senders))] }

// alternative is the first host that is well. It must not depend on the dice, as it is called at any time.
func (w *moveWorld) alternative(*Stream) *Sender {
	for _, s := range w.senders {
		if s.State() == Ready {
			return s
		}
	}
	return nil
}

func (w *moveWorld) count(name string, n int) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	w.counts[name] += n
}

func (w *moveWorld) note(format string, args ...any) {
	w.logMu.Lock()
	defer w.logMu.Unlock()
	w.log = append(w.log, time.Now().Format("05.000 ")+fmt.Sprintf(format, args...))
}

func (w *moveWorld) fail(format string, args ...any) {
	w.t.Helper()
	w.logMu.Lock()
	defer w.logMu.Unlock()
	tail := w.log[max(0, len(w.log)-200):]
	w.t.Errorf("seed %d: %s\n%s", w.seed, fmt.Sprintf(format, args...), strings.Join(tail, "\n"))
}

func (h *moveHost) start() {
	h.net.pause(false)
	ln := h.net.listen()
	r, err := receiver.New(receiver.Config{
		Address: "sim", MaxMessageSize: 1 << 20, WindowMessages: 5 + h.w.rng.IntN(100), WindowBytes: 1 << 20,
		MaxConnections: 100, MaxTopics: 100, MaxPublishers: 100, MaxStreams: 100, MaxConnectionsPerHost: 100,
		HandshakeTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, DeadAfter: 30 * time.Second, ForgetAfter: time.Minute,
		Budget: flow.NewBudget(1 << 28), Logger: watermill.NopLogger{},
	}, ln)
	require.NoError(h.w.t, err)
	h.life = &moveLife{host: h, receiver: r, lastID: map[string]map[int]int{}, behind: map[string]int{}}
	for _, g := range h.w.groups {
		h.life.members = append(h.life.members, r.Topic("t").Join(g, func() {}))
	}
}

// end ends a life: its connections are lost first if it is killed.
func (h *moveHost) end(killed bool) {
	l := h.life
	h.life = nil
	h.net.pause(false)
	if killed {
		_ = l.receiver // nothing is heard of it any more
		h.net.mu.Lock()
		ln := h.net.listener
		h.net.mu.Unlock()
		if ln != nil {
			_ = ln.Close()
		}
		h.net.reset()
	}
	_ = l.receiver.Close(context.Background())
}

func (w *moveWorld) run() {
	w.t.Helper()
	for range 60 + w.rng.IntN(200) {
		w.step()
		if w.rng.IntN(3) == 0 {
			synctest.Wait()
		}
		if w.t.Failed() {
			break
		}
	}
	w.heal()
	for _, s := range w.senders {
		s.Close()
	}
	for _, h := range w.hosts {
		if h.life != nil {
			h.end(false)
		}
	}
}

func (w *moveWorld) step() {
	h := w.hosts[w.rng.IntN(len(w.hosts))]
	switch n := w.rng.IntN(100); {
	case n < 25:
		w.publish(w.streams[w.rng.IntN(len(w.streams))])
	case n < 45:
		h.take(1 + w.rng.IntN(10))
	case n < 65:
		h.settle(1 + w.rng.IntN(10))
	case n < 67:
		h.giveBack()
	case n < 85:
		w.sleep(time.Duration(w.rng.IntN(60)) * time.Millisecond)
	case n < 90:
		st, to := w.streams[w.rng.IntN(len(w.streams))], w.anySender()
		w.note("move to %v", slices.Index(w.senders, to))
		st.MoveTo(to)
	case n < 92:
		w.note("reset %d", h.n)
		w.count("resets", 1)
		h.net.reset()
	case n < 94:
		if h.life != nil {
			w.note("pause %d", h.n)
			w.count("pauses", 1)
			h.net.pause(true)
		}
	case n < 96:
		w.note("resume %d", h.n)
		h.net.pause(false)
	case n < 97:
		w.sleep(time.Duration(w.rng.IntN(2000)) * time.Millisecond)
	case n < 98 && h.life != nil:
		w.note("drain %d", h.n)
		w.count("drains", 1)
		h.life.receiver.Drain()
	case n < 99 && h.life != nil:
		w.note("kill %d", h.n)
		w.count("kills", 1)
		h.end(true)
	case h.life == nil:
		w.note("start %d", h.n)
		h.start()
	}
}

// sleep lets time pass, and the senders see it.
func (w *moveWorld) sleep(d time.Duration) {
	for ; d > 0; d -= 50 * time.Millisecond {
		time.Sleep(min(d, 50*time.Millisecond))
		for _, s := range w.senders {
			s.Tick(time.Now())
		}
	}
}

func (w *moveWorld) publish(st *Stream) {
	b := &session.Batch{}
	first := w.next + 1
	for range 1 + w.rng.IntN(8) {
		w.next++
		_, _, _ = b.Append(1<<20, func(dst []byte) ([]byte, error) { return strconv.AppendInt(dst, int64(w.next), 10), nil })
	}
	last, level := w.next, session.Level(w.rng.IntN(3))
	w.mu.Lock()
	for id := first; id <= last; id++ {
		w.callOf[id] = call{first, w.behind}
	}
	w.mu.Unlock()
	w.note("publish %d to %d", first, last)
	w.calls.Go(func() { // ends with the messages, or the Senders
		n, _, err := st.Publish(context.Background(), b, level, 0)
		w.mu.Lock()
		defer w.mu.Unlock()
		for id := first; id < first+n; id++ {
			w.published = append(w.published, id)
		}
		if err == nil && level == session.Handled {
			w.confirmed = append(w.confirmed, confirmed{first, last})
			for id := first; id <= last; id++ {
				for g, all := range w.given {
					if x := all[id]; x == nil || !x.handled {
						w.fail("Publish says that %d was handled, and group %s has not", id, g)
					}
				}
			}
		}
	})
	synctest.Wait()
	if !slices.ContainsFunc(w.senders, func(s *Sender) bool { return inLine(s) > 0 }) {
		w.behind = last
	}
}
