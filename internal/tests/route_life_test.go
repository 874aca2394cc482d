package tests

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// watched is a Resolver whose route a test changes.
type watched struct {
	mu     sync.Mutex // guards the fields below
	route  route.Route
	update func(route.Route)
}

func (w *watched) Resolve(context.Context, string) (route.Route, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.route, nil
}

func (w *watched) Watch(ctx context.Context, _ string, update func(route.Route)) error {
	w.mu.Lock()
	w.update = update
	update(w.route)
	w.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

// isWatched tells that set is heard at once.
func (w *watched) isWatched() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.update != nil
}

// set changes the route.
func (w *watched) set(r route.Route) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.route = r; w.update != nil {
		w.update(r)
	}
}

// usage is what a process has taken.
type usage struct {
	heap                    int64
	goroutines, descriptors int
}

func used(t *testing.T) usage {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("the descriptors are counted in /proc: ", err)
	}
	return usage{int64(m.HeapAlloc), runtime.NumGoroutine(), len(fds)}
}

// requireNoMore waits until no more is taken than before.
func requireNoMore(t *testing.T, before usage) {
	t.Helper()
	var now usage
	ok := func() bool {
		now = used(t)
		return now.heap <= max(before.heap+before.heap/20, before.heap+1<<20) && now.goroutines <= before.goroutines+4 && // workers that come and go
			now.descriptors <= before.descriptors
	}
	for began := time.Now(); !ok(); time.Sleep(50 * time.Millisecond) {
		require.Less(t, time.Since(began), patience, "before %+v, now %+v", before, now)
	}
	t.Logf("before %+v, after %+v", before, now)
}

// TestRoute_AddressesComeAndGo, a thousand of them, and leave nothing behind.
func TestRoute_AddressesComeAndGo(t *testing.T) {
	idle := used(t)
	home := freeAddress(t)
	counting(t, home)
	w := &watched{route: route.Route{Addresses: []string{home}, Policy: route.RoundRobin}}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: w, ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, pub.Close()) }()
	publish := func() { require.NoError(t, pub.Publish("orders", newMessages(4)...)) }
	churn := func(rounds int) {
		for i := range rounds { // of ten dead addresses each
			addresses := []string{home}
			for k := range 10 {
				addresses = append(addresses, fmt.Sprintf("127.%d.%d.1:1", i+1, k+1))
			}
			w.set(route.Route{Addresses: addresses, Policy: route.RoundRobin})
			publish()
		}
		w.set(route.Route{Addresses: []string{home}, Policy: route.RoundRobin})
		publish()
	}
	churn(10) // fills the pools
	requireNoMore(t, usage{1 << 40, idle.goroutines + 32, idle.descriptors + 64})
	before := used(t)
	churn(100)
	requireNoMore(t, before)
}

// TestManager_PublishersComeAndGo on a Manager that lives on, to living addresses, and leave nothing behind.
func TestManager_PublishersComeAndGo(t *testing.T) {
	idle := used(t)
	addresses := []string{freeAddress(t), freeAddress(t), freeAddress(t)}
	for _, a := range addresses {
		counting(t, a)
	}
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	come := func(n int) {
		for range n {
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Manager: m, Resolver: route.Static{"orders": {Addresses: addresses, Policy: route.RoundRobin}}, Confirm: buffstreams.ConfirmHandled,
			}, nil)
			require.NoError(t, err)
			require.NoError(t, pub.Publish("orders", newMessages(3)...))
			require.NoError(t, pub.Close())
		}
	}
	come(10)
	requireNoMore(t, usage{1 << 40, idle.goroutines + 32, idle.descriptors + 64})
	before := used(t)
	come(1000)
	requireNoMore(t, before)
}

// TestManager_ForgetsAnAddressThatNothingUses, and dials it anew for the next publisher.
func TestManager_ForgetsAnAddressThatNothingUses(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	counting(t, address)
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Confirm: buffstreams.ConfirmHandled}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(address+"/orders", newMessage("x")))
	require.True(t, m.PeerStatus(address).Connected)
	require.NoError(t, pub.Close())
	require.Eventually(t, func() bool { return !m.PeerStatus(address).Connected }, patience, 10*time.Millisecond)
	other, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Confirm: buffstreams.ConfirmHandled}, nil)
	require.NoError(t, err)
	require.NoError(t, other.Publish(address+"/orders", newMessage("x")))
	require.NoError(t, other.Close())
}

// TestRoute_SwitchesWhenAnAddressDrains: the one that closes takes no new message from the moment it says so.
func TestRoute_SwitchesWhenAnAddressDrains(t *testing.T) {
	for _, chosen := range []route.Policy{route.Failover, route.RoundRobin, route.LeastPending, route.Hash} {
		first, second := freeAddress(t), freeAddress(t)
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: first, CloseTimeout: patience}, nil)
		require.NoError(t, err)
		held := subscribe(t, sub, "orders")
		rest := counting(t, second)
		pub := routedTo(t, route.Route{Addresses: []string{first, second}, Policy: chosen, HashKey: "k"}, patience)
		publish := func(i int) {
			msg := newMessage("x")
			msg.Metadata.Set("k", fmt.Sprint(i))
			began := time.Now()
			require.NoError(t, pub.Publish("orders", msg), "policy %v", chosen)
			require.Less(t, time.Since(began), patience/2, "it waits for what drains")
		}
		for i := range 20 {
			publish(i)
		}
		busy := receive(t, held) // its handler takes until the end
		other := 100             // the slot of what is busy waits for its handler
		for policy.Slot(fmt.Sprint(other)) == policy.Slot(busy.Metadata.Get("k")) {
			other++
		}
		before := rest.Load()
		closed := later(sub.Close)
		require.Eventually(t, func() bool { publish(other); return rest.Load() >= before+20 }, patience, time.Millisecond)
		busy.Ack()
		require.NoError(t, requireResult(t, closed))
		for i := range 20 {
			publish(i)
		}
	}
}

// TestRoute_WatchThatTellsNonsenseIsLogged, and the route stays.
func TestRoute_WatchThatTellsNonsenseIsLogged(t *testing.T) {
	home := freeAddress(t)
	got := counting(t, home)
	logger := watermill.NewCaptureLogger()
	w := &watched{route: route.Route{Addresses: []string{home}}}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Resolver: w}, logger)
	require.NoError(t, err)
	defer func() { require.NoError(t, pub.Close()) }()
	require.NoError(t, pub.Publish("orders", newMessage("x")))
	for i, nonsense := range []route.Route{{}, {Addresses: []string{home}, Policy: route.Hash}, {Addresses: []string{"::"}}} {
		require.Eventually(t, func() bool { // once it watches
			w.set(nonsense)
			return len(logger.Captured()[watermill.ErrorLogLevel]) > i
		}, patience, time.Millisecond)
		require.NoError(t, pub.Publish("orders", newMessage("x")))
	}
	require.Eventually(t, func() bool { return got.Load() == 4 }, patience, time.Millisecond)
}
