package moves

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/receiver"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const (
	topic    = "orders"
	patience = 20 * time.Second
)

// host is a receiver whose network a test can break.
type host struct {
	t        *testing.T
	receiver *receiver.Receiver
	gate     *gate
	member   *dispatch.Member
	woken    chan struct{}
	refuses  atomic.Bool // who connects
	inHand   []dispatch.Delivery
	got      []got // that members have taken, in this order
}

// got is a message as a host got it.
type got struct {
	id     int
	again  bool   // it is marked as one that can come twice
	tenure uint64 // of its stream
}

func newHost(t *testing.T) *host { return newHostAt(t, testkit.Host()+":0") }

func newHostAt(t *testing.T, address string) *host {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	require.NoError(t, err)
	h := &host{t: t, gate: newGate(ln), woken: make(chan struct{}, 1)}
	h.receiver, err = receiver.New(receiver.Config{
		Address: address, MaxMessageSize: 1 << 20, WindowMessages: 1000, WindowBytes: 16 << 20,
		MaxConnections: 100, MaxTopics: 100, MaxPublishers: 100, MaxStreams: 100, MaxConnectionsPerHost: 100,
		HandshakeTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, DeadAfter: 30 * time.Second, ForgetAfter: time.Minute,
		Budget: flow.NewBudget(1 << 28), Logger: watermill.NopLogger{},
		Authenticate: func(context.Context, receiver.Peer) (string, error) {
			if h.refuses.Load() {
				return "", errors.New("not you")
			}
			return "publisher", nil
		},
	}, h.gate)
	require.NoError(t, err)
	h.member = h.receiver.Topic(topic).Join("g", func() {
		select {
		case h.woken <- struct{}{}:
		default:
		}
	})
	t.Cleanup(func() {
		h.gate.resume()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = h.receiver.Close(ctx)
	})
	return h
}

func (h *host) address() string { return h.gate.Addr().String() }

// take waits for n messages, and has them in hand.
func (h *host) take(n int) {
	h.t.Helper()
	late := time.After(patience)
	for n > 0 {
		if d, _, ok := h.member.Take(); ok {
			h.inHand = append(h.inHand, d)
			id, err := strconv.Atoi(string(d.Message()))
			require.NoError(h.t, err)
			source, _ := d.Origin()
			h.got = append(h.got, got{id, d.Elsewhere(), source.(interface{ Tenure() uint64 }).Tenure()})
			n--
			continue
		}
		select {
		case <-h.woken:
		case <-late:
			h.t.Fatalf("%d messages have not come: got %v", n, h.got)
		}
	}
}

// settle handles the first n messages in hand.
func (h *host) settle(n int) {
	for _, d := range h.inHand[:n] {
		h.member.Settle(d)
	}
	h.inHand = h.inHand[n:]
}

// handle takes and settles n messages.
func (h *host) handle(n int) {
	h.t.Helper()
	h.take(n)
	h.settle(n)
}

// holds waits until the host has received n messages that no member has taken.
func (h *host) holds(n int) {
	h.t.Helper()
	require.Eventually(h.t, func() bool { return h.receiver.Topic(topic).Backlog("g") == n }, patience, time.Millisecond,
		"it holds %d", n)
}

// ids lists the messages in the order in which the host got them.
func (h *host) ids() (ids []int) {
	for _, g := range h.got {
		ids = append(ids, g.id)
	}
	return ids
}

// marked lists those that are marked as ones that can come twice.
func (h *host) marked() (ids []int) {
	for _, g := range h.got {
		if g.again {
			ids = append(ids, g.id)
		}
	}
	return ids
}

// world is a publisher's senders.
type world struct {
	t       *testing.T
	mover   sender.Mover
	ticker  *sender.Ticker
	numbers atomic.Uint64
	budget  *flow.Budget
	after   time.Duration
	window  int
	stop    chan struct{}
	senders []*sender.Sender
	wg      sync.WaitGroup

	mu    sync.Mutex
	moves []sender.Moved
	at    *sender.Sender // what Alternative says
	last  int            // message
}

func newWorld(t *testing.T, moveAfter time.Duration) *world {
	w := &world{
		t: t, ticker: sender.NewTicker(10 * time.Second), budget: flow.NewBudget(1 << 28), after: moveAfter, window: 1000,
		stop: make(chan struct{}),
	}
	w.wg.Go(func() { // ends with stop
		w.ticker.Run(w.stop, func(now time.Time) (busy bool) {
			w.mu.Lock()
			senders := w.senders
			w.mu.Unlock()
			for _, s := range senders {
				busy = s.Tick(now) || busy
			}
			return busy
		})
	})
	t.Cleanup(func() {
		close(w.stop)
		w.wg.Wait()
	})
	return w
}

func (w *world) sender(address string) *sender.Sender {
	s := sender.New(sender.Config{
		Target: netio.Target{Network: "tcp", Address: address}, Dial: (&netio.Dialer{}).DialContext,
		MaxMessageSize: 1 << 20, WindowMessages: w.window, WindowBytes: 16 << 20, HandshakeTimeout: 5 * time.Second,
		WriteTimeout: 10 * time.Second, PingAfter: 10 * time.Second, DeadAfter: 30 * time.Second, ForgetAfter: time.Minute,
		MoveAfter: w.after, Backoff: func() backoff.BackOff { return netio.NewFullJitter(10*time.Millisecond, 50*time.Millisecond, 2) },
		Identity:   session.Identity{Publisher: [16]byte{9}, Epoch: 1, Secret: [16]byte{8}},
		NextStream: func() uint64 { return w.numbers.Add(1) }, Budget: w.budget, Ticker: w.ticker, Mover: &w.mover,
		Logger: watermill.NopLogger{},
	})
	w.mu.Lock()
	w.senders = append(w.senders[:len(w.senders):len(w.senders)], s)
	w.mu.Unlock()
	w.t.Cleanup(func() { s.Close() })
	return s
}

// stream begins a stream whose alternative is what stays in w.at.
func (w *world) stream(at *sender.Sender) *sender.Stream { return w.newStream(at, false) }

func (w *world) newStream(at *sender.Sender, elsewhere bool) *sender.Stream {
	return at.NewStream(sender.StreamConfig{
		Elsewhere: elsewhere,
		Identity:  session.Identity{Publisher: [16]byte{1}, Epoch: 1, Secret: [16]byte{2}}, Topic: topic,
		Alternative: func(*sender.Stream) *sender.Sender {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.at
		},
		Moved: func(m sender.Moved) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.moves = append(w.moves, m)
		},
	})
}

func (w *world) alternative(s *sender.Sender) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = s
}

// moved waits for a move of the stream, and returns it.
func (w *world) moved(n int) sender.Moved {
	w.t.Helper()
	var last sender.Moved
	require.Eventually(w.t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.moves) >= n {
			last = w.moves[n-1]
		}
		return len(w.moves) >= n
	}, patience, time.Millisecond, "the stream moves")
	return last
}

// batch encodes n messages, whose content is their number.
func (w *world) batch(n int) *session.Batch {
	b := &session.Batch{}
	for range n {
		w.last++
		_, ok, err := b.Append(1<<20, func(dst []byte) ([]byte, error) { return fmt.Appendf(dst, "%d", w.last), nil })
		require.True(w.t, ok)
		require.NoError(w.t, err)
	}
	return b
}

// publish puts n messages into the stream.
func (w *world) publish(st *sender.Stream, n int) {
	w.t.Helper()
	_, _, err := st.Publish(context.Background(), w.batch(n), 0, 0)
	require.NoError(w.t, err)
}

// publishing publishes n messages in a goroutine, and returns where its result comes.
func (w *world) publishing(st *sender.Stream, n int, level session.Level) <-chan error {
	b, done := w.batch(n), make(chan error, 1)
	w.wg.Go(func() { // ends with the Publish, which has a time-out
		_, _, err := st.Publish(context.Background(), b, level, patience)
		done <- err
	})
	return done
}

func (w *world) drain(st *sender.Stream) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(w.t, st.Drain(ctx), "everything is handled")
}

// numbers lists from first to last.
func numbers(first, last int) (all []int) {
	for n := first; n <= last; n++ {
		all = append(all, n)
	}
	return all
}
