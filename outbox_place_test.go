package buffstreams

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// scriptedPlacer notes where a stream is, and calls a test before it does.
type scriptedPlacer struct {
	place store.Place
	set   func(context.Context, store.Place) error
}

func (p *scriptedPlacer) Place(store.Key) store.Place { return p.place }

func (p *scriptedPlacer) SetPlace(ctx context.Context, _ store.Key, place store.Place) error {
	if err := p.set(ctx, place); err != nil {
		return err
	}
	p.place = place
	return nil
}

// usesAt returns the uses of addresses.
func usesAt(m *Manager, all ...*address) (n []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range all {
		n = append(n, a.uses)
	}
	return n
}

func fetchConfig() sender.FetchConfig {
	return sender.FetchConfig{
		Identity: session.Identity{Publisher: [16]byte{1}, Epoch: 1}, Stream: 1, Topic: "orders", Base: 1,
		OnSettled: func([]store.Range) {}, OnRefused: func(uint64, *PeerError) {},
	}
}

// TestPlacement_HasOneUseOfWhereItIs, whatever becomes of a move.
func TestPlacement_HasOneUseOfWhereItIs(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		set    error // of the outbox
		closes bool  // the address that it is to go to, meanwhile
		moves  bool
	}{
		"it moves":                      {moves: true},
		"the outbox cannot note it":     {set: broken},
		"where it should go is no more": {closes: true},
	} {
		p := newTestPublisher(t, EnvelopeMarshaler{})
		from, to := using(t, p, "127.0.0.1:1"), using(t, p, "127.0.0.1:2")
		placer := &scriptedPlacer{set: func(context.Context, store.Place) error {
			if c.closes {
				to.sender.Close()
			}
			return c.set
		}}
		relay := &outboxRelay{placer: placer, manager: p.manager, logger: watermill.NopLogger{}}
		at := &placement{streamRelay: &streamRelay{outboxRelay: relay}, topic: "orders", addr: from}
		fetched, err := from.sender.Fetch(fetchConfig())
		require.NoError(t, err)
		require.ErrorIs(t, at.move(t.Context(), fetched, &target{addr: to, at: to.target}), c.set, name)
		if c.moves {
			require.Same(t, to, at.addr, name)
			require.Equal(t, store.Place{Address: "127.0.0.1:2", Tenure: 1}, placer.place, "nothing was sent before")
			require.Equal(t, []int{0, 2}, usesAt(p.manager, from, to), name)
		} else {
			require.Same(t, from, at.addr, name)
			require.Equal(t, []int{1, 1}, usesAt(p.manager, from, to), name)
		}
		fetched.End()
		require.NoError(t, p.Close(), name)
	}
}

// TestPlacement_EndsWithItsDelivery: nothing of it is under way when the stream is delivered anew.
func TestPlacement_EndsWithItsDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newTestPublisher(t, EnvelopeMarshaler{})
		home, elsewhere := using(t, p, "127.0.0.1:1"), using(t, p, "127.0.0.1:2")
		moving, goOn, broken := make(chan context.Context, 1), make(chan struct{}), errors.New("broken")
		placer := &scriptedPlacer{place: store.Place{Address: "127.0.0.1:1", Tenure: 1}}
		placer.set = func(ctx context.Context, _ store.Place) error {
			moving <- ctx
			<-goOn
			return ctx.Err()
		}
		asked := make(chan struct{})
		r, log := newTestRelay(t, &scriptedOutbox{readable: func(uint64) (<-chan struct{}, error) { <-asked; return nil, broken }})
		r.publisher, r.manager, r.placer = p, p.manager, placer
		p.relay = r.outboxRelay
		topic := "127.0.0.1:2/orders" // it names another address now
		s := store.Stream{ID: 7, Key: store.TopicKey(topic, "orders", 0, -1), First: 1, Next: 1}
		ended := make(chan error, 1)
		go func() { ended <- r.deliverOnce(s) }() // ends with goOn
		ctx := <-moving
		close(asked)
		synctest.Wait()
		require.ErrorIs(t, ctx.Err(), context.Canceled, "the move is to end")
		require.Empty(t, ended, "it has not ended yet")
		close(goOn)
		require.ErrorIs(t, <-ended, broken)
		require.Empty(t, log.Lines, "that it has ended is no fault")
		require.Equal(t, []int{1, 1}, usesAt(p.manager, home, elsewhere))
		p.relay = nil
		require.NoError(t, p.Close())
	})
}

// TestPlacement_TellsOthersOnce of what an earlier process may have left there, not with each attempt.
func TestPlacement_TellsOthersOnce(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	p.cfg.Resolver = route.Static{"orders": {Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}}}
	home := using(t, p, "127.0.0.1:1")
	r := &streamRelay{outboxRelay: &outboxRelay{publisher: p, manager: p.manager}}
	at := &placement{streamRelay: r, topic: "orders", slot: -1, addr: home}
	cfg := fetchConfig()
	cfg.Tenure = 1
	at.voidElsewhere(cfg)
	require.False(t, r.voided, "there was no place before it")
	cfg.Tenure = 2
	at.voidElsewhere(cfg)
	require.True(t, r.voided)
	r.publisher = nil // it would be asked for the route
	require.NotPanics(t, func() { at.voidElsewhere(cfg) })
}

// TestOutbox_MessagesOfASlotGoTogether, in their order, and those of each slot to a stream of its own.
func TestOutbox_MessagesOfASlotGoTogether(t *testing.T) {
	p := &Publisher{relay: &outboxRelay{placer: &scriptedPlacer{}}}
	g := &group{policy: route.Hash, hashKey: "k", targets: []*target{{addr: &address{}, topic: "orders", name: "orders"}}}
	messages := keyed("a", "b", "c", "b", "a")
	parts := p.splitByTopic(g, messages)
	require.Len(t, parts, 3)
	for i, want := range [][]int{{0, 4}, {1, 3}, {2}} {
		require.Equal(t, want, parts[i].index)
		first := messages[want[0]]
		require.Same(t, first, parts[i].messages[0])
		slot := policy.Slot(first.Metadata.Get("k"))
		require.Equal(t, store.TopicKey("orders", "orders", 0, slot).Destination, parts[i].target.peer)
	}
	g.index = 1
	require.Equal(t, store.TopicKey("orders", "orders", 1, policy.Slot("a")).Destination, p.splitByTopic(g, messages[:1])[0].target.peer)
	require.Len(t, p.splitByTopic(g, keyed(make([]string, 3*outboxSlots)...)), outboxSlots, "those without a key are shared")
	g.pinned = true
	require.Nil(t, p.splitByTopic(g, messages), "its address gets each of them itself")
	g.pinned, p.relay.placer = false, nil
	require.Nil(t, p.splitByTopic(g, messages), "they belong to addresses")
}

// TestOutbox_AGroupThatIsInTheRouteNoMore: what waits for it is told so; what has another one in its place goes there.
func TestOutbox_AGroupThatIsInTheRouteNoMore(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	p.cfg.Resolver = route.Static{"orders": {Addresses: []string{"127.0.0.1:1", "127.0.0.1:2"}}}
	r, err := p.routeOf("orders", time.Minute)
	require.NoError(t, err)
	g, err := r.groupAt("orders", 0)
	require.NoError(t, err)
	require.Nil(t, g.placeOf(-1), "none of its addresses is ready")
	_, err = r.groupAt("orders", 1)
	require.ErrorContains(t, err, "number 2")
	next := &group{policy: route.Failover, current: policy.None, targets: []*target{{topic: "orders"}}}
	g.place.Store(next)
	require.Same(t, next.targets[0], g.placeOf(-1))
}
