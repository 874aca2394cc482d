package buffstreams

import (
	"github.com/buffstreams/watermill-buffstreams/route"

	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
)

// newTestPublisher returns one whose peers are away.
func newTestPublisher(t *testing.T, m Marshaler) *Publisher {
	t.Helper()
	away := func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }
	p, err := NewPublisher(PublisherConfig{
		Marshaler: m, Resolver: route.To("127.0.0.1:1"), ManagerConfig: ManagerConfig{Dial: away},
		Confirm: ConfirmEnqueued, CloseTimeout: time.Millisecond,
	}, nil)
	require.NoError(t, err)
	return p
}

// blockedMarshaler fails when it may go on.
type blockedMarshaler chan struct{}

var errBlocked = errors.New("it was blocked")

func (b blockedMarshaler) Marshal(dst []byte, _ string, _ *message.Message) ([]byte, error) {
	<-b
	return dst, errBlocked
}

func TestPublisher_CloseWaitsForRunningPublishCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(blockedMarshaler)
		p := newTestPublisher(t, goOn)
		published, closed := make(chan error, 2), make(chan error, 1)
		for range 2 {
			go func() { published <- p.Publish("topic", message.NewMessage("1", nil)) }()
		}
		synctest.Wait()
		go func() { closed <- p.Close() }()
		for range 2 {
			synctest.Wait()
			require.Empty(t, closed)
			require.ErrorIs(t, p.Publish("topic", message.NewMessage("2", nil)), ErrPublisherClosed)
			require.ErrorIs(t, p.Publish("other", message.NewMessage("3", nil)), ErrPublisherClosed)
			goOn <- struct{}{}
			require.ErrorIs(t, <-published, errBlocked)
		}
		require.NoError(t, <-closed)
	})
}

// pass begins and ends a call on so many topics.
func pass(t *testing.T, p *Publisher, topics int) {
	t.Helper()
	for i := range topics {
		r, err := p.begin("passed " + strconv.Itoa(i))
		require.NoError(t, err)
		p.end(r)
	}
}

func TestTopicState_IsForgottenOnlyWhenNothingUsesIt(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	require.NoError(t, p.Publish("undelivered", message.NewMessage("1", nil)))
	undelivered := p.state("undelivered")
	called, err := p.begin("called")
	require.NoError(t, err)
	pass(t, p, 1000)
	require.Less(t, len(p.topics), 300)
	require.Same(t, undelivered, p.state("undelivered"))
	require.Same(t, called, p.state("called"))

	p.end(called)
	pass(t, p, 1000)
	require.Same(t, undelivered, p.state("undelivered"))
	require.False(t, called.enter())
	require.EqualValues(t, forgotten, called.calls.Load())
	p.last.Store(called) // the call that found it in the last moment
	again, err := p.begin("called")
	require.NoError(t, err)
	require.NotSame(t, called, again)
	p.end(again)
	var lost *UndeliveredError
	require.ErrorAs(t, p.Close(), &lost)
	require.Equal(t, 1, lost.Count)
}

func TestTopicState_IsForgottenWhileOthersLookForIt(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			dice := rand.New(rand.NewPCG(g, 1))
			for range 5000 {
				topic := strconv.Itoa(dice.IntN(300))
				r, err := p.begin(topic)
				if err != nil || r.topic != topic {
					t.Errorf("%q led to %q: %v", topic, r.topic, err)
					return
				}
				p.end(r)
			}
		})
	}
	wg.Wait()
	require.Zero(t, p.calling())
	for _, r := range p.topics {
		require.Zero(t, r.calls.Load())
	}
	require.NoError(t, p.Close())
}

// A topic that is looked up is not forgotten, though no call waits for that any more: each call would begin another lookup.
func TestTopicState_IsKeptWhileItIsLookedUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn, lookups := make(chan struct{}), 0
		p := newTestPublisher(t, EnvelopeMarshaler{})
		p.cfg.PublishTimeout = time.Second
		p.cfg.Resolver = route.Func(func(context.Context, string) (route.Route, error) {
			lookups++
			<-goOn
			return route.Route{Addresses: []string{"127.0.0.1:1"}}, nil
		})
		for range 3 {
			require.ErrorIs(t, p.Publish("topic", message.NewMessage("1", nil)), ErrTimeout)
			pass(t, p, 1000)
		}
		synctest.Wait() // the lookup's goroutine has written it
		require.Equal(t, 1, lookups)
		close(goOn)
		synctest.Wait()
		pass(t, p, 1000)
		require.Less(t, len(p.topics), 300)
		require.NoError(t, p.Close())
	})
}

// watchedRoutes counts who watches it.
type watchedRoutes struct{ watching atomic.Int64 }

func (*watchedRoutes) Resolve(context.Context, string) (route.Route, error) {
	return route.Route{Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}}, nil
}

func (w *watchedRoutes) Watch(ctx context.Context, _ string, _ func(route.Route)) error {
	w.watching.Add(1)
	defer w.watching.Add(-1)
	<-ctx.Done()
	return ctx.Err()
}

// Topics that come and go leave nothing: neither themselves, nor that they can have another route, nor a use of their address, nor
// a Watch.
func TestTopicState_LeavesNothingBehind(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	routes := &watchedRoutes{}
	p.cfg.Resolver = routes
	for i := range 1000 {
		s, err := p.begin("routed " + strconv.Itoa(i))
		require.NoError(t, err)
		w := p.newCallWait(s, message.NewMessage("1", nil))
		_, err = p.resolve(w, s)
		require.NoError(t, err)
		w.end()
		p.end(s)
	}
	require.Less(t, len(p.topics), 300)
	require.Len(t, p.routed, len(p.topics))
	for _, a := range p.manager.addresses {
		require.Equal(t, len(p.topics), a.uses)
	}
	for s := range p.senders {
		require.Equal(t, len(p.topics), p.senders[s])
	}
	require.Eventually(t, func() bool { return routes.watching.Load() == int64(len(p.topics)) }, 30*time.Second, time.Millisecond)
	require.NoError(t, p.Close())
}
