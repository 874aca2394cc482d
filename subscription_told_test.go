package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// The hooks hear of what was handled, quickly or not, and of dead letters, when it is settled and not before.
func TestHooks_HearOfWhatIsSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watch := &spy{}
		topic := newBubbleTopic(t)
		sub := topic.subscribe(t.Context(), SubscriberConfig{
			MaxInFlight: 2, MaxAttempts: 1, AckWaitTimeout: time.Hour, DeadLetterTopic: "dead", DeadLetter: publishFunc(func() error { return nil }),
		})
		synctest.Wait()
		settled := map[string]int64{}
		watch.on = func(e any) { settled[fmt.Sprintf("%T", e)] = topic.source.settled.Load() }
		sub.subscriber.manager.hooks = hook.NewSet([]hooks.Hook{watch}, watermill.NopLogger{})
		for i, answer := range []func(*message.Message){
			func(m *message.Message) { m.Ack() },
			func(m *message.Message) { time.Sleep(time.Second); m.Ack() },
			func(m *message.Message) { m.Nack() },
		} {
			topic.feed(1)
			answer(next(t, sub))
			time.Sleep(time.Second)
			synctest.Wait()
			require.EqualValues(t, i+1, settled["hooks.Handled"])
		}
		require.EqualValues(t, 3, settled["hooks.DeadLettered"])
		require.Equal(t, "dead", of[hooks.DeadLettered](watch)[0].To)
	})
}

// Why a message was refused, and how large it was, is said to its publisher as it is; where none hears, the Manager says it of the topic
// as it is on the wire.
func TestFailure_RefusalIsAsItWas(t *testing.T) {
	for name, c := range map[string]struct {
		reason                error
		undecodable, tooLarge bool
	}{
		"nacked":      {reason: &AttemptsExhaustedError{Attempts: 1}},
		"undecodable": {reason: &UndecodableError{errBlocked}, undecodable: true},
		"too large":   {reason: &UndecodableError{fmt.Errorf("no: %w", ErrLimit)}, undecodable: true, tooLarge: true},
		"a limit":     {reason: fmt.Errorf("no: %w", ErrLimit)},
	} {
		synctest.Test(t, func(t *testing.T) {
			p, _, source := stillPump(t, 1, SubscriberConfig{})
			var told []any
			p.topic = "127.0.0.1:1/orders"
			p.subscriber.manager.failures.hook = func(topic string, encoded []byte, err error) { told = []any{topic, string(encoded), err} }
			d, _, ok := p.member.Take()
			require.True(t, ok)
			p.failAgain(d, c.reason)
			require.Len(t, source.refused, 1, name)
			r := source.refused[0]
			require.Equal(t, []any{c.undecodable, c.tooLarge, c.reason.Error(), 1}, []any{r.Undecodable, r.TooLarge, r.Reason, r.Bytes}, name)
			r.Unheard()
			synctest.Wait()
			require.Equal(t, []any{"orders", "0", c.reason}, told, name)
			require.EqualValues(t, 1, p.stats().DeadLettered, name)
		})
	}
}

// Subscriber.Close ends what all calls wait for, at the same moment, and each returns the same: that of a handler that calls it too.
func TestSubscriber_CloseSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		topic := newBubbleTopic(t)
		sub := topic.subscribe(t.Context(), SubscriberConfig{
			MaxInFlight: 2, MaxAttempts: 1, CloseTimeout: 3 * time.Second, DeadLetterTopic: "dead",
			DeadLetter: publishFunc(func() error { <-stuck; return nil }),
		})
		s := sub.subscriber
		s.done, s.subs[sub] = make(chan struct{}), struct{}{}
		topic.feed(2)
		next(t, sub).Nack()
		handled := next(t, sub)
		synctest.Wait()
		began, results := time.Now(), make(chan error, 4)
		for range cap(results) {
			go func() { results <- s.Close() }() // ends with Close
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		require.NoError(t, handled.Context().Err(), "its handler has its time")
		require.Empty(t, results)
		var first error
		for range cap(results) {
			err := <-results
			require.Equal(t, 3*time.Second+closeGrace, time.Since(began))
			require.ErrorContains(t, err, nameDeadLetter+" has not returned within CloseTimeout: 1 calls are left")
			if first == nil {
				first = err
			}
			require.Equal(t, first, err)
		}
		require.ErrorIs(t, handled.Context().Err(), context.Canceled)
		require.Equal(t, 2, topic.Backlog("g"), "nothing is lost")
		require.Equal(t, first, s.Close())
		require.Empty(t, s.subs)
		close(stuck)
	})
}

// A plain peer's state is told when it is another one, by the address that the user has given; its last error stays when it is back.
func TestPlainPeer_TellsOfEachChangeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watch := &spy{}
		m := &Manager{}
		m.told.set = hook.NewSet([]hooks.Hook{watch}, watermill.NopLogger{})
		p := m.peers.of(netio.Target{Network: "tcp", Address: "a:1", TLS: true}, &m.told)
		began, failed := time.Now(), errors.New("away")
		for range 2 {
			p.OnDialed(hooks.Dialed{Address: "10.0.0.1:1", Err: failed})
			time.Sleep(time.Second)
		}
		p.OnDialed(hooks.Dialed{Address: "10.0.0.1:1"})
		p.OnConnected(hooks.Connected{Address: "10.0.0.1:1"})
		back := AddressStats{
			Address: "tls://a:1", Plain: true, State: "ready", Since: began.Add(2 * time.Second), LastError: "away",
			LastErrorAt: began.Add(time.Second), Connects: 1, Failures: 2,
		}
		require.Equal(t, []AddressStats{back}, m.peers.stats(nil))
		time.Sleep(time.Second)
		p.OnLost(hooks.Lost{Address: "10.0.0.1:1"})
		back.State, back.Since, back.Failures = "failed", began.Add(3*time.Second), 3
		require.Equal(t, []AddressStats{back}, m.peers.stats(nil))
		require.Equal(t, []hooks.AddressState{
			{Address: "tls://a:1", State: "failed", Since: began, Err: failed},
			{Address: "tls://a:1", State: "ready", Since: began.Add(2 * time.Second)},
			{Address: "tls://a:1", State: "failed", Since: began.Add(3 * time.Second)},
		}, of[hooks.AddressState](watch))
		for _, e := range of[hooks.Dialed](watch) {
			require.Equal(t, "tls://a:1", e.Address)
		}
		require.Equal(t, []hooks.Lost{{Address: "tls://a:1"}}, of[hooks.Lost](watch))
		require.Equal(t, []hooks.Connected{{Address: "tls://a:1"}}, of[hooks.Connected](watch))
	})
}

// A message of a plain peer takes as much room as one of another peer would.
func TestPlainReceiver_TakesTheRoomOfAMessage(t *testing.T) {
	_, p := listenPlainFor(t, nil)
	member := p.topic.Join("g", func() {})
	defer member.Leave()
	require.NoError(t, p.receive([]byte("seven77")))
	require.Equal(t, session.EncodedSize(7), p.topic.Window().Held().Bytes)
	require.Equal(t, 1, p.OnlyCopies())
	d, _, ok := member.Take()
	require.True(t, ok)
	member.Settle(d)
	require.Zero(t, p.topic.Window().Held())
	require.Zero(t, p.OnlyCopies())
}
