package buffstreams

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// A Publisher that closes has no use of any address, also none of the slots of Hash: the Manager, which has their messages then, has one
// of each.
func TestPublisher_ThatClosesUsesNoAddress(t *testing.T) {
	m := newTestManager(t, ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errBlocked }})
	p, err := NewPublisher(PublisherConfig{
		Manager: m, Confirm: ConfirmEnqueued, CloseTimeout: time.Millisecond,
		Resolver: route.Static{"orders": {Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}, Policy: route.Hash, HashKey: "k"}},
	}, nil)
	require.NoError(t, err)
	require.NoError(t, p.Publish("orders", keyed("a", "b", "c", "")...))
	used := func() int { return m.usesOf("127.0.0.1:1") + m.usesOf("127.0.0.1:2") }
	require.Greater(t, used(), 2)
	var lost *UndeliveredError
	require.ErrorAs(t, p.Close(), &lost)
	require.Equal(t, 2, used())
	require.Empty(t, p.senders)
}

// However a route changes, each of its addresses counts once, and none that left and holds nothing.
func TestRoute_ThatChangesHasEachAddressOnce(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	p.cfg.Resolver = &watchedRoutes{}
	s, err := p.begin("orders")
	require.NoError(t, err)
	defer p.end(s)
	const one, two, three = "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"
	for _, addresses := range [][]string{{one, two}, {two, three}, {three}, {two, one, three}} {
		for _, chosen := range []route.Policy{route.RoundRobin, route.All, route.Hash} {
			require.NoError(t, p.change(s, route.Route{Addresses: addresses, Policy: chosen, HashKey: "k"}))
			p.tickFormer(s)
			p.tickRetired(s, time.Now())
			require.Empty(t, s.former)
			require.Empty(t, s.retired)
			require.Len(t, p.senders, len(addresses))
			for _, n := range p.senders {
				require.Equal(t, 1, n)
			}
			for _, a := range addresses {
				require.Equal(t, 1, p.manager.usesOf(a))
			}
		}
	}
}

// The parts of a call that go side by side have one time: it begins before they do.
func TestCallWait_BeginsBeforePartsGoSideBySide(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	s := p.state("orders")
	one, two := awayGroup(t, p, route.Failover, "127.0.0.1:1"), awayGroup(t, p, route.Failover, "127.0.0.1:2")
	w := p.newCallWait(s, nil)
	require.Nil(t, p.sendGroups(w, []*group{one}, keyed("a")))
	require.True(t, w.began.IsZero(), "one part needs no clock")
	require.Nil(t, p.sendGroups(w, []*group{one, two}, keyed("a")))
	require.False(t, w.began.IsZero())

	both := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1", "127.0.0.1:2")
	both.started.Store(true)
	v := &view{changes: p.manager.changes.count.Load(), usable: []int{0, 1}, candidates: make([]policy.Candidate, 2)}
	for i := range v.candidates {
		v.candidates[i].State, v.candidates[i].Weight = policy.Ready, 1
	}
	both.known.Store(v)
	w = p.newCallWait(s, nil)
	sent := p.sendGroup(w, both, keyed("a", "b"))
	require.Nil(t, sent.errs)
	require.False(t, w.began.IsZero())
}

// The log names the groups of the addresses once, in whichever order the addresses stand.
func TestRoute_GroupsThatDifferAreLoggedOnce(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	lines := 0
	p.logger = onError{call: func(string) { lines++ }}
	g := &group{groupsSaid: &groupsSaid{}}
	for _, name := range []string{"billing", "audit"} {
		m, s, l := newPair(t, AckedConfig{})
		require.True(t, l.Topic("a").Initialize(name))
		_, err := publishOne(t, s, "order")
		require.NoError(t, err)
		g.targets = append(g.targets, &target{topic: "orders", name: "a", peer: name, addr: m.addressOf(s)})
	}
	for range 2 {
		p.compareGroups(g)
		require.True(t, g.groupsDiffer())
		slices.Reverse(g.targets)
	}
	require.Equal(t, 1, lines)
}

// stubOutbox holds messages for some destinations.
type stubOutbox struct {
	store.Outbox
	destinations []string
	drain        func(context.Context) error
}

func (o *stubOutbox) Drain(ctx context.Context) error { return o.drain(ctx) }

func (o *stubOutbox) Streams() (all []store.Stream) {
	for _, d := range o.destinations {
		all = append(all, store.Stream{Key: store.Key{Destination: d}})
	}
	return all
}

// A Publisher with an Outbox shows the addresses to which that has something, of all that its Manager has.
func TestStats_OfAnOutboxShowItsDestinations(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	for _, a := range []string{"127.0.0.1:1", "127.0.0.1:2"} {
		senderTo(t, m, tcp(a))
	}
	p := &Publisher{manager: m, relay: &outboxRelay{}}
	p.cfg.Outbox = &stubOutbox{destinations: []string{"127.0.0.1:2", "127.0.0.1:3", "none"}}
	all := p.sendersByTarget()
	require.Len(t, all, 1)
	require.Contains(t, all, tcp("127.0.0.1:2"))
}

// Drain of an Outbox ends with its own error, that of the context, or what was closed.
func TestDrain_OfAnOutboxSaysWhyItEnds(t *testing.T) {
	errOutbox := errors.New("the disk is gone")
	waits := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		drain func(context.Context) error
		ctx   context.Context
		end   func(*Publisher)
		want  error
	}{
		"nothing is left":  {func(context.Context) error { return nil }, t.Context(), func(*Publisher) {}, nil},
		"the Outbox fails": {func(context.Context) error { return errOutbox }, t.Context(), func(*Publisher) {}, errOutbox},
		"the time is over": {waits, done, func(*Publisher) {}, context.Canceled},
		"both are":         {waits, done, func(p *Publisher) { p.closed.Store(true); p.cancel() }, context.Canceled},
		"it closes":        {waits, t.Context(), func(p *Publisher) { p.closed.Store(true); p.cancel() }, ErrPublisherClosed},
		"its Manager does": {waits, t.Context(), func(p *Publisher) { p.manager.end() }, ErrManagerClosed},
	} {
		p := newTestPublisher(t, EnvelopeMarshaler{})
		p.cfg.Outbox = &stubOutbox{drain: c.drain}
		c.end(p)
		require.Equal(t, c.want, p.drainOutbox(c.ctx), name)
		p.closed.Store(false) // so that Close closes
		_ = p.Close()
	}
}

// The time of a call on the plain wire includes that of the Resolver, and the log says what it waits for now, while it does.
func TestPlainPublisher_HasOneTimeAndSaysWhatItWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := testkit.NewLog()
		p, err := NewPublisher(PublisherConfig{
			Wire: WireBuffStreams, Confirm: ConfirmEnqueued, PublishTimeout: 3 * time.Second, CloseTimeout: time.Millisecond,
			Resolver: route.Func(func(context.Context, string) (route.Route, error) {
				time.Sleep(time.Second / 2)
				return route.Route{Addresses: []string{"127.0.0.1:1"}}, nil
			}),
			ManagerConfig: ManagerConfig{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }},
		}, log)
		require.NoError(t, err)
		began := time.Now()
		require.ErrorIs(t, p.Publish("orders", keyed("a")...), ErrTimeout)
		require.Equal(t, 3*time.Second, time.Since(began))
		linesOf(log)

		w := plainWait{publisher: p, state: p.state("other")}
		w.begin(errNoConnect)
		w.begin(errNotTaken)
		time.Sleep(longWait)
		synctest.Wait()
		lines := linesOf(log)
		require.Len(t, lines, 1)
		require.Equal(t, errNotTaken.Error(), lines[0].Fields["reason"])
		w.end()
		soon := plainWait{publisher: p, state: p.state("soon")}
		soon.begin(errNoConnect)
		soon.end()
		time.Sleep(2 * longWait)
		synctest.Wait()
		require.Empty(t, linesOf(log), "it does not wait any more")
		_ = p.Close()
	})
}
