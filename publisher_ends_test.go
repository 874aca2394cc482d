package buffstreams

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/route"
)

func newLasting() *lasting {
	return &lasting{Context: context.Background(), done: make(chan struct{})}
}

// However a call of Publish ends, it leaves nothing with what outlives it: the Publisher, and the context of its first message.
func TestPublish_LeavesNothingWithAContext(t *testing.T) {
	addresses := []string{"127.0.0.1:1", "127.0.0.1:2"}
	routes := route.Static{
		"one": {Addresses: addresses[:1]}, "many": {Addresses: addresses, Policy: route.RoundRobin},
		"all":   {Addresses: addresses, Policy: route.All},
		"fails": {Addresses: addresses, Policy: route.All, Name: string([]byte{0xff})},
	}
	asked := route.Func(func(ctx context.Context, topic string) (route.Route, error) { return routes.Resolve(ctx, topic) })
	for _, resolver := range []route.Resolver{routes, asked} {
		for _, counts := range []bool{true, false} {
			leavesNothing(t, resolver, counts, "one", "many", "all", "fails", "no route", "127.0.0.1:1/orders")
		}
	}
}

func leavesNothing(t *testing.T, resolver route.Resolver, publishContext bool, topics ...string) {
	t.Helper()
	p, ofPublisher := newTestPublisher(t, EnvelopeMarshaler{}), newLasting()
	defer func() { _ = p.Close() }()
	p.cfg.Resolver, p.cfg.PublishContext, p.ctx = resolver, publishContext, ofPublisher
	for _, topic := range topics {
		ofMessage := newLasting()
		two := keyed("a", "b")
		two[0].SetContext(ofMessage)
		for range 3 { // the first looks the topic up
			err := p.Publish(topic, two...)
			require.Equal(t, topic == "fails" || topic == "no route", err != nil, "%s: %v", topic, err)
			require.Zero(t, ofMessage.waiting.Load(), topic)
		}
	}
	require.Eventually(t, func() bool { return ofPublisher.waiting.Load() == 0 }, 30*time.Second, time.Millisecond,
		"but for lookups, which end when the Resolver returns")
}

// withdrawn is a stream that gives every message back.
type withdrawn struct {
	stream
	err error
}

func (w withdrawn) Publish(context.Context, *session.Batch, session.Level, time.Duration) (int, []session.Range, error) {
	return 0, nil, &sender.WithdrawnError{Err: w.err}
}

// What went wrong beside what came back is the end of the Publisher, or of its Manager, only where that ends.
func TestSend_SaysThatItIsClosedOnlyIfItIs(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	at := awayGroup(t, p, route.Failover, "127.0.0.1:1").targets[0]
	send := func(failed error) error {
		_, _, err := p.send(t.Context(), at, &routedStream{stream: withdrawn{err: failed}}, keyed("a"), time.Second)
		return err
	}
	require.ErrorIs(t, send(errBlocked), errBlocked)
	require.ErrorIs(t, send(sender.ErrClosed), ErrManagerClosed)
	p.cancel()
	p.closed.Store(true)
	require.ErrorIs(t, send(errBlocked), ErrPublisherClosed)
	var back *sender.WithdrawnError
	require.ErrorAs(t, send(nil), &back)
	require.NoError(t, back.Err)
	p.closed.Store(false) // so that Close closes
}

// A call whose messages come back says what became of them as any other: nothing if they arrive elsewhere.
func TestSendAgain_IsTheWholeCall(t *testing.T) {
	for _, waits := range []bool{false, true} {
		p := newTestPublisher(t, EnvelopeMarshaler{})
		p.cfg.PublishContext = true
		g := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1")
		g.dynamic = waits // it could get another address
		p.adopt(p.state("orders"), &resolved{groups: []*group{g}, targets: g.targets})
		messages, ofMessage := keyed("a", "b", "c"), newLasting()
		messages[0].SetContext(ofMessage)
		if waits {
			p.cfg.Confirm = ConfirmReceived
		}
		back := &sender.WithdrawnError{Messages: []session.Range{{First: 1, Last: 2}}, Deadline: time.Now().Add(10 * time.Millisecond)}
		err := p.sendAllAgain(g, g.targets[0], messages, sendResult{enqueued: 3}, back)
		require.Zero(t, ofMessage.waiting.Load())
		if !waits {
			require.NoError(t, err)
			require.Equal(t, 2, g.targets[0].unsettled())
			p.cancel() // what needs no wait arrives all the same
			require.NoError(t, p.sendAllAgain(g, g.targets[0], messages, sendResult{enqueued: 3}, back))
			require.Equal(t, 4, g.targets[0].unsettled())
		} else {
			var failed *PublishError
			require.ErrorAs(t, err, &failed)
			require.ErrorIs(t, err, ErrTimeout)
			require.Equal(t, messages[1:], failed.NotSent)
			require.Empty(t, failed.Unknown)
		}
		_ = p.Close()
	}
}

// What was sent before the rest came back, and is not waited for any more, is told with what has ended.
func TestSendAgain_SaysWhatIsClosed(t *testing.T) {
	m, s, l := newPair(t, AckedConfig{WindowMessages: 1, MoveAfter: time.Hour})
	for _, c := range []struct {
		topic string
		end   func(*Publisher)
		want  error
	}{
		{"first", func(p *Publisher) { p.closed.Store(true); p.cancel() }, ErrPublisherClosed},
		{"second", func(*Publisher) { _ = m.Close() }, ErrManagerClosed},
	} {
		p, err := NewPublisher(PublisherConfig{Manager: m, Confirm: ConfirmHandled}, nil)
		require.NoError(t, err)
		handler := newConsumer(l, c.topic)
		st := s.NewStream(sender.StreamConfig{Identity: newIdentity(), Topic: c.topic, Elsewhere: true})
		result := make(chan error, 1)
		go func() { // ends with the Withdraw of MoveTo
			_, _, err := st.Publish(p.ctx, acktest.BatchOf(t, "1", "2"), session.Handled, time.Minute)
			result <- err
		}()
		handler.next()
		st.MoveTo(senderTo(t, m, tcp("127.0.0.1:1")))
		var back *sender.WithdrawnError
		require.ErrorAs(t, <-result, &back)
		g := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1")
		c.end(p)
		all := part{target: g.targets[0], slot: -1, messages: keyed("a", "b")}
		got := p.sendAgain(p.newCallWait(p.state("orders"), nil), g, &all, sendResult{enqueued: 2}, back)
		for _, err := range []error{sender.ErrClosed, context.Canceled} {
			require.NotErrorIs(t, got.err, err)
		}
		require.ErrorIs(t, got.err, c.want)
		require.Contains(t, got.lacking, session.Range{First: 0, Last: 0})
		p.closed.Store(false) // so that Close closes
		_ = p.Close()
	}
}

// Errors name three addresses of a route, and how many more there are; and each address at which something went wrong.
func TestPublishError_NamesAFewAddresses(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	few := []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}
	three, five := awayGroup(t, p, route.RoundRobin, few...), awayGroup(t, p, route.RoundRobin, append(few, "127.0.0.1:4", "127.0.0.1:5")...)
	require.Equal(t, "127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3", three.label())
	require.Equal(t, "127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3, 2 more", five.label())
	require.NotContains(t, three.explain().Error(), "more")
	require.Regexp(t, "127.0.0.1:3 is [^;]*; and 2 more$", five.explain().Error())

	r, messages := &resolved{groups: []*group{three}, targets: three.targets}, keyed("a")
	var v verdict
	v.fail(1, few[0], errBlocked)
	require.ErrorIs(t, errorOf(t, r, messages, v), errBlocked)
	require.NotContains(t, errorOf(t, r, messages, v).Error(), "at ")
	v.fail(1, few[1], ErrTimeout)
	require.Contains(t, errorOf(t, r, messages, v).Error(), `at "127.0.0.1:2": `+ErrTimeout.Error())
}

// A call is sent to the addresses of the next route only if none of it was sent. Groups that have left count where no other is left.
func TestVerdict_OfGroupsThatHaveLeft(t *testing.T) {
	for _, c := range []struct {
		fates   []fate
		nothing bool
	}{
		{[]fate{notSent, notSent}, true}, {[]fate{notSent, unknown}, false}, {[]fate{arrived, notSent}, false},
	} {
		require.Equal(t, c.nothing, (&verdict{fates: c.fates}).nothing(), "%v", c.fates)
	}
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	one, two := awayGroup(t, p, route.RoundRobin, "127.0.0.1:1"), awayGroup(t, p, route.RoundRobin, "127.0.0.1:2")
	r, messages := &resolved{groups: []*group{one, two}, targets: append(one.targets, two.targets...)}, keyed("a", "b")
	left, stays := verdict{left: true}, verdict{}
	for _, v := range []*verdict{&left, &stays} {
		v.fail(2, "", errLeftRoute)
	}
	left.fates[0], left.fates[1] = notSent, notSent
	var failed *PublishError
	require.ErrorAs(t, r.publishError(messages, []verdict{left, left}), &failed)
	require.Equal(t, messages, failed.NotSent)
	require.Empty(t, failed.Unknown)
	stays.fates[0] = unknown
	require.ErrorAs(t, r.publishError(messages, []verdict{left, stays}), &failed)
	require.Empty(t, failed.NotSent)
	require.Equal(t, messages[:1], failed.Unknown, "the other group has the second")
}

// Of topics that share a stream, as they differ in nothing but their spelling, Close waits for the one that was used last.
func TestPublisher_BusyWithTheLastOfAStream(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	for range 10 { // a map has no order
		for _, topic := range []string{"127.0.0.1:1/orders", "tcp://127.0.0.1:1/orders"} {
			require.NoError(t, p.Publish(topic, keyed("a")...))
			busy := p.busy()
			require.Len(t, busy, 1)
			require.Same(t, p.state(topic).resolved.Load().targets[0].fixed, busy[0])
		}
	}
}

func errorOf(t *testing.T, r *resolved, messages []*message.Message, v verdict) error {
	t.Helper()
	v.fates = []fate{notSent}
	var failed *PublishError
	require.ErrorAs(t, r.publishError(messages, []verdict{v}), &failed)
	return failed.Err
}
