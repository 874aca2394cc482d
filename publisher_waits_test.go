package buffstreams

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// TestPublish_SaysWhatItWaitedFor where no address is ready, and ends with Close, also where the context of a message counts.
func TestPublish_SaysWhatItWaitedFor(t *testing.T) {
	for _, counts := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := awayWith(t, &askedRoutes{addresses: map[string]string{"orders": "127.0.0.1:1"}}, nil)
			p.cfg.Confirm, p.cfg.PublishTimeout, p.cfg.PublishContext = ConfirmReceived, time.Second, counts
			began := time.Now()
			err := p.Publish("orders", keyed("a")...)
			require.ErrorIs(t, err, ErrTimeout)
			require.ErrorIs(t, err, errNoneReady)
			require.Equal(t, time.Second, time.Since(began))
			p.cfg.PublishTimeout = time.Hour
			result := make(chan error, 1)
			go func() { result <- p.Publish("orders", keyed("a")...) }() // ends with Close
			synctest.Wait()
			require.NoError(t, p.Close())
			require.ErrorIs(t, <-result, ErrPublisherClosed)
		})
	}
}

// TestRoute_FirstMessagesWaitForAllAddresses that may be there soon, as long as the youngest of them may take; Failover knows better.
func TestRoute_FirstMessagesWaitForAllAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPublisher(t, EnvelopeMarshaler{})
		g := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
		synctest.Wait()
		began := time.Now()
		for i, one := range g.targets {
			one.addr.tried.Store(false)
			one.addr.made = began.Add([]time.Duration{-100 * time.Millisecond, -50 * time.Millisecond, -200 * time.Millisecond}[i])
		}
		require.Equal(t, began.Add(freshFor-50*time.Millisecond), g.freshUntil(began))
		w := p.newCallWait(p.state("orders"), nil)
		g.policy = route.Failover
		_, err := p.awaitStart(w, g)
		require.NoError(t, err)
		require.Zero(t, time.Since(began))
		require.NoError(t, p.Close())
	})
}

// goneStream is a stream whose topic is gone when it has taken a message.
type goneStream struct{ idleStream }

func (goneStream) Publish(context.Context, *session.Batch, session.Level, time.Duration) (int, []session.Range, error) {
	return 1, nil, ErrTopicGone
}

// TestEphemeral_DropsWhatWasNotEnqueued: what was is dropped by the stream.
func TestEphemeral_DropsWhatWasNotEnqueued(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	p.cfg.Ephemeral = true
	_, _, err := p.send(t.Context(), &target{topic: "orders"}, &routedStream{stream: goneStream{}}, keyed("a", "b", "c"), time.Second)
	require.NoError(t, err)
	require.EqualValues(t, 2, p.dropped.Load())
}

// TestPublish_GoesDirectlyToOneOfOneGroup that is in the route.
func TestPublish_GoesDirectlyToOneOfOneGroup(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	s := p.state("orders")
	g := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1", "127.0.0.1:2")
	g.started.Store(true)
	g.member, g.leave = context.WithCancel(t.Context())
	ready := func() {
		v := &view{changes: p.manager.changes.count.Load(), candidates: g.candidates(time.Now())}
		for i := range v.candidates {
			v.candidates[i].State = policy.Ready
		}
		v.usable = []int{0, 1}
		g.known.Store(v)
	}
	direct := func(groups ...*group) bool {
		ready()
		ok, err := p.sendDirect(s, &resolved{groups: groups, targets: g.targets}, keyed("a"), time.Second)
		require.NoError(t, err)
		return ok
	}
	require.False(t, direct(g, g))
	require.Eventually(t, func() bool { return direct(g) }, 30*time.Second, time.Millisecond, "addresses may change meanwhile")
	g.leave()
	require.False(t, direct(g))
}
