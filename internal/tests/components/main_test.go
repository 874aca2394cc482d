// Package components runs Watermill's components over this transport: between two Managers, as two processes have them.
package components

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// patience bounds every wait.
const patience = 20 * time.Second

// These leak in Watermill: see the tests that meet them.
var upstreamLeaks = []string{
	"github.com/ThreeDotsLabs/watermill/message/router/middleware.(*mapExpiringKeyRepository).cleanOutLoop",
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == signalsCommand {
		os.Exit(runUntilSignal(os.Args[2]))
	}
	var ignored []goleak.Option
	for _, f := range upstreamLeaks {
		ignored = append(ignored, goleak.IgnoreAnyFunction(f))
	}
	testkit.Main(m, ignored...)
}

var errWanted = errors.New("wanted")

// pair is two services: one listens at address, the other publishes to it.
type pair struct {
	listens, sends *buffstreams.Manager
	address        string
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{}
	p.listens, p.address = newListening(t, buffstreams.ManagerConfig{})
	p.sends = newManager(t, buffstreams.ManagerConfig{})
	return p
}

func newManager(t testing.TB, cfg buffstreams.ManagerConfig) *buffstreams.Manager {
	t.Helper()
	if cfg.CloseTimeout == 0 {
		cfg.CloseTimeout = time.Second
	}
	m, err := buffstreams.NewManager(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := m.Close(); !errors.Is(err, buffstreams.ErrUndelivered) { // some tests leave messages behind
			require.NoError(t, err)
		}
	})
	return m
}

// newListening returns a Manager whose listener gets the address, which is open already: its port cannot be taken.
func newListening(t testing.TB, cfg buffstreams.ManagerConfig) (m *buffstreams.Manager, address string) {
	t.Helper()
	ln, err := net.Listen("tcp", testkit.Home()+":0")
	require.NoError(t, err)
	var once sync.Once
	cfg.Listen = func(network, address string) (l net.Listener, err error) {
		if once.Do(func() { l = ln }); l == nil {
			l, err = net.Listen(network, address)
		}
		return l, err
	}
	m = newManager(t, cfg)
	t.Cleanup(func() { _ = ln.Close() }) // where nothing listened
	return m, ln.Addr().String()
}

func (p *pair) topic(name string) string { return p.address + "/" + name }

func (p *pair) subscriber(t testing.TB, group string, change func(*buffstreams.SubscriberConfig)) *buffstreams.Subscriber {
	t.Helper()
	cfg := buffstreams.SubscriberConfig{
		Manager: p.listens, ListenAddress: p.address, ConsumerGroup: group,
		NackResendSleep: time.Millisecond, NackResendCap: 10 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	s, err := buffstreams.NewSubscriber(cfg, watermill.NopLogger{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func (p *pair) publisher(t testing.TB) *buffstreams.Publisher {
	t.Helper()
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: p.sends, Resolver: route.To(p.address), Confirm: buffstreams.ConfirmReceived,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub
}

func newRouter(t testing.TB) *message.Router {
	t.Helper()
	r, err := message.NewRouter(message.RouterConfig{CloseTimeout: patience}, watermill.NopLogger{})
	require.NoError(t, err)
	return r
}

// run starts a router, or what has the methods of one, and closes it when the test ends.
func run(t testing.TB, r interface {
	Run(ctx context.Context) error
	Running() chan struct{}
	Close() error
}) (ended <-chan error) {
	t.Helper()
	result := make(chan error, 1)
	go func() { result <- r.Run(context.Background()) }() // Ends with Close, which the test's cleanup calls.
	select {
	case <-r.Running():
	case err := <-result:
		require.FailNow(t, "the router ended", "%v", err)
	case <-time.After(patience):
		require.FailNow(t, "the router does not run")
	}
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return result
}

// tally counts what was handled, by payload.
type tally struct {
	mu    sync.Mutex
	order []string
}

func (a *tally) add(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.order = append(a.order, what)
}

func (a *tally) all() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string{}, a.order...)
}

func (a *tally) count(what string) (n int) {
	for _, w := range a.all() {
		if w == what {
			n++
		}
	}
	return n
}

// await waits until there are n, and returns them.
func (a *tally) await(t testing.TB, n int) []string {
	t.Helper()
	require.Eventually(t, func() bool { return len(a.all()) >= n }, patience, time.Millisecond, "%d of %d came", len(a.all()), n)
	return a.all()
}

func newMessage(payload string) *message.Message {
	return message.NewMessage(watermill.NewUUID(), []byte(payload))
}

func newMessages(n int) (msgs []*message.Message) {
	for i := range n {
		msgs = append(msgs, newMessage(fmt.Sprint(i)))
	}
	return msgs
}

func numbers(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// receive returns the next value, and fails the test if none comes.
func receive[T any](t testing.TB, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		require.FailNow(t, "nothing came")
	}
	return v
}
