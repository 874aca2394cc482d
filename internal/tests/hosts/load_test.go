package hosts

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// account is what became of numbered messages. A payload is "number key".
type account struct {
	mu         sync.Mutex // guards the fields below
	times      map[int]int
	last       map[string]int // the highest number of each key
	inversions int            // first deliveries of a key that came behind a later one
}

func newAccount() *account { return &account{times: map[int]int{}, last: map[string]int{}} }

func (a *account) handled(line string) {
	number, key, ok := strings.Cut(line, " ")
	n, err := strconv.Atoi(number)
	if !ok || err != nil { // the last line of a process that was killed
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.times[n]++; a.times[n] > 1 {
		return
	}
	if n < a.last[key] {
		a.inversions++
	}
	a.last[key] = max(a.last[key], n)
}

func (a *account) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.times)
}

// duplicates is the number of deliveries of messages that were handled before.
func (a *account) duplicates() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, times := range a.times {
		n += times - 1
	}
	return n
}

// addresses returns n loopback addresses with a free port.
func addresses(t testing.TB, n int) (all []string) {
	for range n {
		all = append(all, testkit.FreeAddress(t))
	}
	return all
}

// load publishes at a rate from several goroutines until it is stopped.
type load struct {
	pub     *buffstreams.Publisher
	next    atomic.Int64
	ok      atomic.Int64
	errs    atomic.Int64
	lastErr atomic.Value
	stop    chan struct{}
	wg      sync.WaitGroup

	mu      sync.Mutex // guards longest
	longest time.Duration
}

// callers is the number of goroutines that publish, each with keys of its own.
const callers = 16

func startLoad(pub *buffstreams.Publisher, rate int) *load {
	l := &load{pub: pub, stop: make(chan struct{})}
	interval := time.Second * callers / time.Duration(rate)
	for c := range callers {
		l.wg.Go(func() { l.call(c, interval) }) // ends with stop
	}
	return l
}

func (l *load) call(caller int, interval time.Duration) {
	due := time.Now()
	for i := 0; ; i++ {
		select {
		case <-l.stop:
			return
		default:
		}
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		due = due.Add(interval)
		if late := time.Since(due); late > time.Second { // what was not offered in its time is not made up for
			due = time.Now()
		}
		key := fmt.Sprintf("%d-%d", caller, i%8)
		msg := message.NewMessage(watermill.NewUUID(), fmt.Appendf(nil, "%d %s", l.next.Add(1), key))
		msg.Metadata.Set("key", key)
		began := time.Now()
		err := l.pub.Publish("orders", msg)
		took := time.Since(began)
		l.mu.Lock()
		l.longest = max(l.longest, took)
		l.mu.Unlock()
		if err != nil {
			l.errs.Add(1)
			l.lastErr.Store(err.Error())
			continue
		}
		l.ok.Add(1)
	}
}

// end stops the load and waits for its calls.
func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

// world is three replicas and a publisher.
type world struct {
	hosts []*host
	seen  *account
	pub   *buffstreams.Publisher
}

func newWorld(t *testing.T, policy route.Policy, confirm buffstreams.Confirm, work []time.Duration, inFlight int) *world {
	w := &world{seen: newAccount()}
	all := addresses(t, len(work))
	for i, address := range all {
		h := &host{address: address, work: work[i], inFlight: inFlight, handled: w.seen.handled}
		h.start(t)
		t.Cleanup(func() { h.end(syscallKill) })
		w.hosts = append(w.hosts, h)
	}
	var err error
	w.pub, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.Static{"orders": {Addresses: all, Policy: policy, HashKey: "key"}}, Confirm: confirm, PublishTimeout: 20 * time.Second,
		CloseTimeout: time.Second,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.pub.Close() })
	return w
}

// median of figures.
func median(figures []float64) float64 {
	slices.Sort(figures)
	return figures[len(figures)/2]
}
