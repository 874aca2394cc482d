package buffstreams

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// onError is a logger that calls a function for each error.
type onError struct {
	watermill.NopLogger
	call func(msg string)
}

func (o onError) Error(msg string, _ error, _ watermill.LogFields) { o.call(msg) }

// Drain returns when OnFailure was told of each message that a peer is known to have refused, though the log takes its time.
func TestDrain_WaitsForWhatIsBeingReported(t *testing.T) {
	reported := make(chan struct{}, 1)
	m := newTestManager(t, ManagerConfig{Logger: onError{call: func(string) {
		reported <- struct{}{}
		time.Sleep(50 * time.Millisecond) // Drain has this time to be wrong
	}}})
	l, err := m.listen(anyPort)
	require.NoError(t, err)
	var told atomic.Int64
	p, err := NewPublisher(PublisherConfig{
		Manager: m, Confirm: ConfirmReceived, OnFailure: func(string, []byte, error) { told.Add(1) },
	}, nil)
	require.NoError(t, err)
	handler := newConsumer(l, "orders")
	require.NoError(t, p.Publish(l.Addr().String()+"/orders", keyed("a")...))
	handler.Refuse(handler.next(), dispatch.Refusal{Reason: "no"})
	<-reported
	require.NoError(t, p.Drain(t.Context()))
	require.EqualValues(t, 1, told.Load())
	require.NoError(t, p.Close())
}

// A Publisher that cannot be made leaves nothing of its private Manager.
func TestPublisher_ThatIsNotMadeLeavesNothing(t *testing.T) {
	testkit.CheckLeaks(t)
	_, err := NewPublisher(PublisherConfig{MaxMessageSize: 1<<20 + 1, ManagerConfig: ManagerConfig{Ready: make(chan struct{})}}, nil)
	require.ErrorContains(t, err, "PublisherConfig.MaxMessageSize")
}

// Lookups that fail are logged until the Publisher closes, whose end they are then.
func TestRoute_LookupsThatFailAreLoggedUntilTheEnd(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	lines := 0
	p.logger = onError{call: func(string) { lines++ }}
	s := p.state("orders")
	require.ErrorIs(t, p.renew(s, route.Route{}, errBlocked), errBlocked)
	require.Equal(t, 1, lines)
	require.ErrorIs(t, s.failed, errBlocked)
	require.ErrorIs(t, p.renew(p.state("mail"), route.Route{}, errBlocked), errBlocked)
	require.Equal(t, 2, lines, "of each topic")
	p.cancel()
	require.ErrorIs(t, p.renew(s, route.Route{}, ErrTimeout), ErrTimeout)
	require.Equal(t, 2, lines)
}

// A route whose Watch has ended is watched again with the next lookup.
func TestRoute_IsWatchedAgain(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	routes := &watchedRoutes{}
	p.cfg.Resolver = routes
	s, err := p.begin("orders")
	require.NoError(t, err)
	w := p.newCallWait(s, nil)
	_, err = p.resolve(w, s)
	require.NoError(t, err)
	watching := func(want bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return (s.watching != nil) == want && (routes.watching.Load() == 1) == want
		}, 30*time.Second, time.Millisecond)
	}
	watching(true)
	p.mu.Lock()
	s.endWatchLocked()
	p.mu.Unlock()
	watching(false)
	p.refreshDue(s, time.Now().Add(2*refreshEvery))
	watching(true)
	p.end(s)
	require.NoError(t, p.Close())
}

// No stream begins at a target that was given up, also none for what leaves another address.
func TestDivide_GivesNothingToATargetThatLeft(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	g := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1", "127.0.0.1:2")
	p.leave(g.targets[:1])
	require.Nil(t, p.heir(g, g.targets[0]))
	require.Nil(t, g.targets[0].main.Load())
	require.Zero(t, p.manager.usesOf("127.0.0.1:1"))
	require.NotNil(t, p.heir(g, g.targets[1]))
	require.Equal(t, 2, p.manager.usesOf("127.0.0.1:2"))
}

// A topic with a route is ready though the route cannot be looked up now; one without is not. A Subscriber needs a subscription.
func TestReady_AsLongAsThereIsARoute(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	none, some := p.state("none"), p.state("some")
	p.adopt(some, &resolved{groups: []*group{{targets: []*target{{}}, place: new(atomic.Pointer[group])}}})
	none.failed, some.failed = errBlocked, errBlocked
	require.Equal(t, []string{`topic "none" has no route: ` + errBlocked.Error()}, p.notReady())

	sub, err := NewSubscriber(SubscriberConfig{}, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"the Subscriber has no subscription"}, sub.notReady())
	require.NoError(t, sub.Close())
	require.Equal(t, []string{"the Subscriber is closed"}, sub.notReady())
}
