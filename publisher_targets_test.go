package buffstreams

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// TestRoutedStream_NeverFromTLSToPlaintext, but to a Unix socket, where no others read it.
func TestRoutedStream_NeverFromTLSToPlaintext(t *testing.T) {
	plain, secure := &address{target: netio.Target{Network: "tcp"}}, &address{target: netio.Target{Network: "tcp", TLS: true}}
	socket := &address{target: netio.Target{Network: "unix"}}
	for _, c := range []struct {
		from, to *address
		may      bool
	}{{plain, plain, true}, {plain, secure, true}, {secure, secure, true}, {secure, socket, true}, {secure, plain, false}} {
		f := &routedStream{}
		f.addr.Store(c.from)
		require.Equal(t, c.may, f.mayMoveTo(c.to), "%v to %v", c.from.target, c.to.target)
	}
}

// TestGroup_SharesAnAddressByItsNameToo: where the certificates name another host, another one is there.
func TestGroup_SharesAnAddressByItsNameToo(t *testing.T) {
	at := func(address, serverName string) *group {
		return &group{targets: []*target{{Member: route.Member{Address: address, Attributes: route.Attributes{ServerName: serverName}}}}}
	}
	require.True(t, at("a:1", "a").shares(at("a:1", "a")))
	require.False(t, at("a:1", "a").shares(at("a:1", "b")))
	require.False(t, at("a:1", "a").shares(at("b:1", "a")))
}

// TestRoute_ATargetIsAnotherOneIfAnythingIsSaidOfItElse: what the route says of it, and what the topic is called there.
func TestRoute_ATargetIsAnotherOneIfAnythingIsSaidOfItElse(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	const address = "127.0.0.1:1"
	p.cfg.Resolver = route.Func(route.To(address).Resolve) // whose routes can change
	s := p.state("orders")
	changed := func(r route.Route) *target {
		r.Addresses, r.Policy = []string{address}, route.RoundRobin
		require.NoError(t, p.change(s, r))
		return s.resolved.Load().targets[0]
	}
	first := changed(route.Route{})
	require.Equal(t, "orders", first.name)
	require.Same(t, first, changed(route.Route{HashKey: "k"}))
	named := changed(route.Route{Name: "n"})
	require.Equal(t, "n", named.name)
	prior := changed(route.Route{Name: "n", Attributes: map[string]route.Attributes{address: {Priority: 7, Weight: 3}}})
	require.Equal(t, route.Attributes{Priority: 7, Weight: 3}, prior.Attributes)
	require.Equal(t, []*target{first, named}, s.former)
}

// TestPublisher_WaitsForEachStream, though the wait for one of them has failed.
func TestPublisher_WaitsForEachStream(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	for _, topic := range []string{"orders", "mail"} {
		require.NoError(t, p.Publish(topic, keyed("a")...))
	}
	waits := 0
	require.ErrorIs(t, p.awaitAll(t.Context(), func(stream, context.Context) error { waits++; return errBlocked }), errBlocked)
	require.Equal(t, 2, waits)
}

// movedHook notes what has moved.
type movedHook chan hooks.Moved

func (m movedHook) OnMoved(e hooks.Moved) { m <- e }

// TestDivided_TellsWhereFromAndTo messages have gone, if any have.
func TestDivided_TellsWhereFromAndTo(t *testing.T) {
	told := make(movedHook, 2)
	p, err := NewPublisher(PublisherConfig{ManagerConfig: ManagerConfig{Hooks: []hooks.Hook{told}}}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close()) }()
	from, to := using(t, p, "127.0.0.1:1"), using(t, p, "127.0.0.1:2")
	f := &routedStream{name: "orders"}
	f.addr.Store(from)
	st := to.sender.NewStream(sender.StreamConfig{Identity: newIdentity(), Topic: "orders"})
	p.divided(f, &target{addr: to}, 0, st)
	p.divided(f, &target{addr: to}, 3, st)
	require.Equal(t, hooks.Moved{Topic: "orders", From: "127.0.0.1:1", To: "127.0.0.1:2", Messages: 3, Tenure: 1}, <-told)
	p.moved(f, sender.Moved{From: from.sender, To: to.sender, Topic: "orders", Messages: 3, Repeats: 2, Tenure: 4})
	require.Equal(t, hooks.Moved{
		Topic: "orders", From: "127.0.0.1:1", To: "127.0.0.1:2", Messages: 3, MayRepeat: 2, Tenure: 4,
	}, <-told)
	require.Empty(t, told)
}

// TestTarget_HoldsWhatAllOfItsStreamsHold: those that have moved away, too.
func TestTarget_HoldsWhatAllOfItsStreamsHold(t *testing.T) {
	one := &target{others: []*routedStream{{stream: &stubStream{unsettled: []int{2}}}, {stream: &stubStream{unsettled: []int{3}}}}}
	one.main.Store(&routedStream{stream: &stubStream{unsettled: []int{4}}})
	require.Equal(t, 9, one.unsettled())
}

// TestTarget_AStreamServesTheGroupThatItBeganFor, and those that follow that, as long as it is there.
func TestTarget_AStreamServesTheGroupThatItBeganFor(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	g, other := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1"), awayGroup(t, p, route.RoundRobin)
	one := g.targets[0]
	f := p.flow(g, one)
	require.Same(t, f, p.flow(g, one))
	followed := &group{place: g.place}
	require.Same(t, f, p.flow(followed, one))
	require.NotSame(t, f, p.flow(other, one), "it has another identity")
	require.Contains(t, one.flows(), f)
}

// TestRoutedStream_IsAsOldAsItsStayAtAnAddress: the next one has had no time for what it held before.
func TestRoutedStream_IsAsOldAsItsStayAtAnAddress(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	g := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1", "127.0.0.1:2")
	f := p.flow(g, g.targets[0])
	enqueue(t, p, g.targets[0], f)
	now := time.Now()
	require.Zero(t, f.age(now))
	require.Equal(t, time.Second, f.age(now.Add(time.Second)))
	from, _ := f.moveTo(g.targets[1].addr)
	require.Zero(t, f.age(now.Add(2*time.Second)))
	require.Equal(t, time.Second, f.age(now.Add(3*time.Second)))
	f.moveTo(from)
}

// An address is as old as the older of the streams that are there.
func TestTick_GoesByTheOlderOfTwoStreamsAtAnAddress(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	g := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1", "127.0.0.1:2")
	first, now := g.targets[0], time.Now()
	old := p.flow(g, first)
	enqueue(t, p, first, old)
	g.tickSlow(now)
	first.others = []*routedStream{old}
	first.main.Store(nil)
	enqueue(t, p, first, p.flow(g, first))
	g.tickSlow(now.Add(policy.SlowAfter))
	require.True(t, first.slow.Load())
}
