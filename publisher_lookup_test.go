package buffstreams

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/route"
)

// TestStats_SinceWhenLookupsFail: since the first of those that failed one after another.
func TestStats_SinceWhenLookupsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := true
		p, err := NewPublisher(PublisherConfig{
			PublishTimeout: time.Second,
			ManagerConfig: ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("there is no network")
			}},
			Resolver: route.Func(func(context.Context, string) (route.Route, error) {
				if fails {
					return route.Route{}, errors.New("no answer")
				}
				return route.Route{Addresses: []string{"127.0.0.1:1"}}, nil
			}),
		}, nil)
		require.NoError(t, err)
		defer func() { _ = p.Close() }()
		since := func() time.Time {
			require.Error(t, p.Publish("orders", keyed("a")...))
			time.Sleep(2 * statsKept)
			return p.Stats().Topics[0].LookupFailing
		}
		began := time.Now()
		first := since()
		require.WithinRange(t, first, began, began.Add(time.Second))
		require.Equal(t, first, since())
		require.Contains(t, p.Stats().Topics[0].LookupError, "no answer")
		fails = false
		require.Zero(t, since())
	})
}

// TestLookup_IsAskedAgainForAnAddressThatHadFailed before the topic came: no connection of it is lost then.
func TestLookup_IsAskedAgainForAnAddressThatHadFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lookups sync.Map
		p, err := NewPublisher(PublisherConfig{
			PublishTimeout: refreshEvery / 2,
			ManagerConfig: ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("there is no network")
			}},
			Resolver: route.Func(func(_ context.Context, topic string) (route.Route, error) {
				n, _ := lookups.LoadOrStore(topic, new(atomic.Int64))
				n.(*atomic.Int64).Add(1)
				return route.Route{Addresses: []string{"127.0.0.1:1"}}, nil
			}),
		}, nil)
		require.NoError(t, err)
		defer func() { _ = p.Close() }()
		for _, topic := range []string{"fails at once", "had failed"} {
			require.Error(t, p.Publish(topic, keyed("a")...))
			n, _ := lookups.Load(topic)
			require.EqualValues(t, 2, n.(*atomic.Int64).Load(), topic)
		}
	})
}

// TestLookup_IsAskedAgainForAnAddressThatIsLostMeanwhile: the answer that is on its way may be older than the loss.
func TestLookup_IsAskedAgainForAnAddressThatIsLostMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, answered atomic.Int64
		p, err := NewPublisher(PublisherConfig{
			PublishTimeout: time.Second,
			ManagerConfig: ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, errors.New("there is no network")
			}},
			Resolver: route.Func(func(context.Context, string) (route.Route, error) {
				if asked.Add(1) == 3 {
					time.Sleep(5 * time.Second)
				}
				answered.Add(1)
				return route.Route{Addresses: []string{"127.0.0.1:1"}}, nil
			}),
		}, nil)
		require.NoError(t, err)
		defer func() { _ = p.Close() }()
		require.Error(t, p.Publish("orders", keyed("a")...))
		for asked.Load() < 3 {
			time.Sleep(time.Second)
		}
		time.Sleep(time.Second)
		require.EqualValues(t, 2, answered.Load())
		p.addressLost(p.state("orders").resolved.Load().targets[0].addr)
		time.Sleep(5*time.Second + 3*refreshLeast)
		synctest.Wait()
		require.EqualValues(t, 4, asked.Load())
	})
}

// askedRoutes is a Resolver that counts how often it is asked for each topic. Each topic has an address of its own.
type askedRoutes struct {
	addresses map[string]string
	watch     func(ctx context.Context, update func(route.Route)) error // nil: there is none

	mu    sync.Mutex // guards the field below
	asked map[string]int
}

func (r *askedRoutes) Resolve(_ context.Context, topic string) (route.Route, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == nil {
		r.asked = map[string]int{}
	}
	r.asked[topic]++
	return route.Route{Addresses: []string{r.addresses[topic]}}, nil
}

func (r *askedRoutes) of(topic string) int {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[topic]
}

// watchedAskedRoutes is one that can be watched.
type watchedAskedRoutes struct{ *askedRoutes }

func (r watchedAskedRoutes) Watch(ctx context.Context, _ string, update func(route.Route)) error {
	return r.watch(ctx, update)
}

// awayWith returns a Publisher whose addresses are all away, and of which those that hang do not say so before a while.
func awayWith(t *testing.T, r route.Resolver, hangs map[string]chan struct{}) *Publisher {
	p, err := NewPublisher(PublisherConfig{
		Resolver: r, Confirm: ConfirmEnqueued, CloseTimeout: time.Millisecond,
		ManagerConfig: ManagerConfig{Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
			if until := hangs[address]; until != nil {
				select {
				case <-until:
				case <-ctx.Done():
				}
			}
			return nil, syscall.ECONNREFUSED
		}},
	}, nil)
	require.NoError(t, err)
	return p
}

// TestRoute_IsLookedUpAgain a second after its address has failed, if that is the first time, and then every 30 s, about.
func TestRoute_IsLookedUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lasts := make(chan struct{})
		r := &askedRoutes{addresses: map[string]string{"fails": "127.0.0.1:1", "hangs": "127.0.0.1:2"}}
		p := awayWith(t, r, map[string]chan struct{}{"127.0.0.1:2": lasts})
		defer func() { _ = p.Close() }()
		began := time.Now()
		for topic := range r.addresses {
			go func() { _ = p.Publish(topic, keyed("a")...) }() // ends with the first attempts
		}
		asked := func(after time.Duration) []int {
			time.Sleep(time.Until(began.Add(after)))
			return []int{r.of("fails"), r.of("hangs")}
		}
		require.Equal(t, []int{1, 1}, asked(900*time.Millisecond))
		require.Equal(t, []int{2, 1}, asked(2*time.Second), "for the topic that has the address")
		close(lasts)
		require.Equal(t, []int{2, 2}, asked(4*time.Second))
		require.Equal(t, []int{2, 2}, asked(24*time.Second), "though it goes on to fail")
		require.Equal(t, []int{3, 3}, asked(40*time.Second))
		require.Equal(t, []int{3, 3}, asked(48*time.Second))
	})
}

// TestRoute_IsNotLookedUpWhileItIsWatched: as long as Watch goes on, and what it has told is a route.
func TestRoute_IsNotLookedUpWhileItIsWatched(t *testing.T) {
	told := route.Route{Addresses: []string{"127.0.0.1:2"}}
	goOn := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, c := range map[string]struct {
		watch   func(ctx context.Context, update func(route.Route)) error
		watched bool
	}{
		"it goes on": {func(ctx context.Context, update func(route.Route)) error {
			update(told)
			return goOn(ctx)
		}, true},
		"it has told nothing": {func(ctx context.Context, _ func(route.Route)) error { return goOn(ctx) }, false},
		"it tells nonsense": {func(ctx context.Context, update func(route.Route)) error {
			update(route.Route{})
			return goOn(ctx)
		}, false},
		"it has ended": {func(_ context.Context, update func(route.Route)) error { update(told); return nil }, false},
		"it tells when it has ended": {func(_ context.Context, update func(route.Route)) error {
			time.AfterFunc(time.Millisecond, func() { update(told) })
			return nil
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := watchedAskedRoutes{&askedRoutes{addresses: map[string]string{"orders": "127.0.0.1:1"}, watch: c.watch}}
				p := awayWith(t, r, nil)
				defer func() { _ = p.Close() }()
				require.NoError(t, p.Publish("orders", keyed("a")...))
				time.Sleep(refreshEvery)
				before := r.of("orders")
				time.Sleep(4 * refreshEvery)
				if c.watched {
					require.Equal(t, before, r.of("orders"))
				} else {
					require.GreaterOrEqual(t, r.of("orders"), before+3)
				}
			})
		})
	}
}

// TestRoute_WithoutOneATopicIsBad, whatever the Resolver is.
func TestRoute_WithoutOneATopicIsBad(t *testing.T) {
	none := route.Static{}
	for _, r := range []route.Resolver{none, route.Func(none.Resolve)} {
		p := awayWith(t, r, nil)
		err := p.Publish("orders", keyed("a")...)
		require.ErrorIs(t, err, ErrBadTopic)
		require.ErrorIs(t, err, route.ErrNoRoute)
		require.NoError(t, p.Close())
	}
}

// TestRoute_WatchEndsWhileItTells: what it tells then is no sign that it goes on.
func TestRoute_WatchEndsWhileItTells(t *testing.T) {
	var p *Publisher
	var s *topicState
	told, begun := make(chan struct{}), false
	p = awayWith(t, watchedAskedRoutes{&askedRoutes{watch: func(ctx context.Context, update func(route.Route)) error {
		if begun { // as there is another route
			<-ctx.Done()
			return ctx.Err()
		}
		begun = true
		go func() { // ends when the test lets routes change
			update(route.Route{Addresses: []string{"127.0.0.1:1"}})
			update(route.Route{Addresses: []string{"127.0.0.1:2"}}) // it has ended by then
			close(told)
		}()
		assert.Eventually(t, func() bool { return s.calls.Load() > 0 }, 30*time.Second, time.Millisecond)
		return nil
	}}}, nil)
	defer func() { _ = p.Close() }()
	s = p.state("orders")
	p.changing.Lock()
	p.mu.Lock()
	p.watchLocked(s)
	p.mu.Unlock()
	state := func() (watching, watched bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return s.watching != nil, s.watched
	}
	require.Eventually(t, func() bool { watching, _ := state(); return !watching }, 30*time.Second, time.Millisecond)
	p.changing.Unlock()
	<-told
	require.Equal(t, []string{"127.0.0.1:1"}, s.resolved.Load().route.Addresses)
	_, watched := state()
	require.False(t, watched)
}

// TestRoute_WatchThatEndsItsGoroutine, as a test's FailNow does, leaves its topic to Resolve.
func TestRoute_WatchThatEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := awayWith(t, watchedAskedRoutes{&askedRoutes{watch: func(_ context.Context, update func(route.Route)) error {
			update(route.Route{Addresses: []string{"127.0.0.1:1"}})
			runtime.Goexit()
			return nil
		}}}, nil)
		defer func() { _ = p.Close() }()
		s := p.state("orders")
		p.mu.Lock()
		p.watchLocked(s)
		p.mu.Unlock()
		synctest.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		require.NotNil(t, s.resolved.Load())
		require.False(t, s.watched)
		require.Nil(t, s.watching)
	})
}
