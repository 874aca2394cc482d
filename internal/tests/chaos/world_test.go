package chaos

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
)

// drainTime is how long everything may take to be handled once the network is whole again.
const drainTime = 30 * time.Second

// world is lanes side by side, and what went wrong in them.
type world struct {
	t          testing.TB
	seed       uint64
	proxies    *proxies
	lanes      []*lane
	publishers sync.WaitGroup
	consumers  sync.WaitGroup
	missed     atomic.Int64 // faults that had nothing to happen to
	closers    []func() error

	mu       sync.Mutex
	counts   map[string]int // faults by kind
	problems []string
	wrong    int
}

func newWorld(t testing.TB, seed uint64, lanes int) *world {
	w := &world{t: t, seed: seed, proxies: &proxies{}, counts: map[string]int{}}
	for i := range lanes {
		w.lanes = append(w.lanes, newLane(t, w, i))
	}
	for _, f := range w.flows() {
		w.publishers.Go(f.publish) // ends when no more is allowed
	}
	return w
}

func (w *world) atEnd(f func() error) { w.closers = append(w.closers, f) }

// complain notes what must not be. The first few are told.
func (w *world) complain(problem string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wrong++; w.wrong <= 20 {
		w.problems = append(w.problems, problem)
	}
}

func (w *world) count(kind string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[kind]++
}

func (w *world) flows() (all []*flow) {
	for _, l := range w.lanes {
		all = append(all, l.flows...)
	}
	return all
}

// torment torments all lanes side by side.
func (w *world) torment(enough func(faults int) bool, share uint64) {
	var all sync.WaitGroup
	for _, l := range w.lanes {
		all.Go(func() { l.torment(enough, share) }) // ends when enough faults happened
	}
	all.Wait()
	for _, l := range w.lanes {
		l.allow(0, true)
	}
}

// drain waits until everything that was allowed is handled, and returns how long that took.
func (w *world) drain() time.Duration {
	began := time.Now()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !w.rested() {
		if now := <-ticker.C; now.Sub(began) > drainTime {
			require.FailNow(w.t, "not everything was handled in time", "%v after the network healed: %s", drainTime, w.standing())
		}
	}
	took := time.Since(began)
	w.publishers.Wait()
	return took
}

func (w *world) rested() bool {
	for _, f := range w.flows() {
		for _, a := range f.accounts {
			if a.handled.Load() < f.lane.allowed {
				return false
			}
		}
	}
	return true
}

// standing says how far each flow came.
func (w *world) standing() string {
	var s strings.Builder
	for _, f := range w.flows() {
		for _, a := range f.accounts {
			if h := a.handled.Load(); h < f.lane.allowed {
				fmt.Fprintf(&s, "\n%s: %d allowed, %d published, %d handled", a.name, f.lane.allowed, f.published.Load(), h)
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.problems {
		s.WriteString("\n" + p)
	}
	return s.String()
}

// settle waits until no connection is left that lost or damaged bytes, and looks once more for what came twice.
func (w *world) settle() {
	deadline := time.Now().Add(giveUp)
	for _, l := range w.lanes {
		for l.relay.doomed(time.Now()) > 0 {
			if time.Now().After(deadline) {
				w.complain(fmt.Sprintf("lane %d: connections that lost or damaged bytes were not given up", l.id))
				break
			}
			pause(10 * time.Millisecond)
		}
	}
	pause(pingAfter)
}

// close closes everything, in the opposite order, and wants no error.
func (w *world) close() {
	w.proxies.kill()
	var errs []error
	for _, f := range slices.Backward(w.closers) {
		errs = append(errs, f())
	}
	w.consumers.Wait()
	require.NoError(w.t, errors.Join(errs...))
}

// verdict adds everything up, and fails the test if the account is not exact.
func (w *world) verdict() tally {
	var sum tally
	for _, f := range w.flows() {
		for _, a := range f.accounts {
			sum.add(a)
			lost := a.missing(f.published.Load())
			if sum.lost += lost; lost > 0 {
				w.complain(fmt.Sprintf("%s: %d of %d messages are lost", a.name, lost, f.published.Load()))
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Zero(w.t, w.wrong, "%s", strings.Join(w.problems, "\n"))
	require.Equal(w.t, tally{handled: sum.handled, nacked: sum.nacked}, sum)
	return sum
}

// publish sends what the lane allows, in calls of many sizes.
func (f *flow) publish() {
	random := rand.New(rand.NewPCG(f.lane.world.seed, uint64(f.id)<<32))
	for n := uint64(0); ; {
		allowed, more := f.lane.await(n)
		if !more {
			return
		}
		batch := make([]*message.Message, min(allowed-n, 1+random.Uint64N(150)))
		for i := range batch {
			batch[i] = encode(f.id, n+uint64(i))
		}
		if err := f.pub.Publish(f.topic, batch...); err != nil {
			f.lane.world.complain(fmt.Sprintf("%s: %v", f.accounts[0].name, err))
			return
		}
		n += uint64(len(batch))
		f.published.Store(n)
	}
}

// consumer reads one subscription. It acks in any order, and nacks now and then.
type consumer struct {
	account  *account
	messages <-chan *message.Message
	inFlight int
	complain func(string)
	open     []opened
}

// opened is a message without an answer.
type opened struct {
	msg   *message.Message
	n     uint64
	first bool
}

const nackEvery = 1009

func (c *consumer) run() {
	for {
		msg, ok := c.next()
		if !ok {
			return
		}
		if msg == nil {
			c.answer()
			continue
		}
		n, first, err := c.account.see(msg)
		if err != nil {
			c.complain(c.account.name + ": " + err.Error())
			msg.Ack()
			continue
		}
		c.open = append(c.open, opened{msg, n, first})
	}
}

// next returns a message, or nil when it is time to answer one.
func (c *consumer) next() (*message.Message, bool) {
	switch {
	case len(c.open) == c.inFlight:
		return nil, true
	case len(c.open) == 0:
		msg, ok := <-c.messages
		return msg, ok
	}
	select {
	case msg, ok := <-c.messages:
		return msg, ok
	default:
		return nil, true
	}
}

// answer acks or nacks one of those that are open.
func (c *consumer) answer() {
	i := rand.IntN(len(c.open))
	o := c.open[i]
	c.open = slices.Delete(c.open, i, i+1)
	if o.first && o.n%nackEvery == nackEvery/2 {
		c.account.nack(o.msg, o.n)
		return
	}
	c.account.ack(o.msg)
}
