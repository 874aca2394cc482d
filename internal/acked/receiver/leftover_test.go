package receiver

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// waysToEnd is what peers have sent when their connections end, by what that is.
func waysToEnd(t *testing.T) map[string][]byte {
	frame := func(f *wire.Frame) []byte { return sealed(t, f) }
	hello := func(token string) []byte {
		return frame(&wire.Frame{Body: &wire.Frame_Hello{Hello: &wire.Hello{
			Version: 1, MaxFrame: session.MinFrame, Token: []byte(token), Features: []string{session.FeatureMove},
		}}})
	}
	open := func(handle uint64, change func(*wire.Open)) []byte {
		o := openOf(1)
		o.Handle = handle
		change(o)
		return frame(&wire.Frame{Body: &wire.Frame_Open{Open: o}})
	}
	plain := func(*wire.Open) {}
	publish := func(n int) []byte {
		f := &wire.Publish{Handle: 1, First: 1}
		for range n {
			f.Messages = append(f.Messages, []byte{1})
		}
		return frame(&wire.Frame{Body: &wire.Frame_Publish{Publish: f}})
	}
	release := frame(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: 1}}})
	id := openOf(1)
	revoke := frame(&wire.Frame{Body: &wire.Frame_Revoke{Revoke: &wire.Revoke{
		Handle: 1, Publisher: id.Publisher, Secret: id.Secret, Epoch: 1, Stream: 1, Topic: "a", Tenure: 9,
	}}})
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	greedy := func(o *wire.Open) { o.WantMessages, o.WantBytes, o.LeastBytes = 1<<40, 1<<40, 1<<40 }
	return map[string][]byte{
		"says nothing":                 nil,
		"is cut in its greeting":       hello("good")[:9],
		"does not greet":               ping(t),
		"is not authenticated":         hello("bad"),
		"greets":                       hello("good"),
		"greets twice":                 join(hello("good"), hello("good")),
		"opens":                        join(hello("good"), open(1, plain)),
		"opens one stream twice":       join(hello("good"), open(1, plain), open(2, plain)),
		"opens with a handle in use":   join(hello("good"), open(1, plain), open(1, plain)),
		"opens what it may not":        join(hello("good"), open(1, func(o *wire.Open) { o.Topic = "forbidden" })),
		"waits for more than there is": join(hello("good"), open(1, greedy)),
		"moves here anew": join(hello("good"), open(1, func(o *wire.Open) { o.Tenure = 1 }),
			open(2, func(o *wire.Open) { greedy(o); o.Tenure = 2 })),
		"comes with a newer epoch":  join(hello("good"), open(1, greedy), open(2, func(o *wire.Open) { o.Epoch = 2 })),
		"releases":                  join(hello("good"), open(1, plain), release),
		"publishes":                 join(hello("good"), open(1, plain), publish(1)),
		"publishes and releases":    join(hello("good"), open(1, plain), publish(1), release),
		"publishes and takes back":  join(hello("good"), open(1, plain), publish(1), revoke),
		"takes back what it wants":  join(hello("good"), open(1, greedy), revoke),
		"publishes without credit":  join(hello("good"), open(1, plain), publish(9)),
		"publishes without stream":  join(hello("good"), publish(1)),
		"is cut in a message":       join(hello("good"), open(1, plain), publish(1)[:8]),
		"says that it gave up":      join(hello("good"), frame(&wire.Frame{Body: &wire.Frame_Failure{Failure: &wire.Failure{}}})),
		"says what is no frame":     join(hello("good"), []byte{0, 0, 0, 1, 0xff}),
		"answers what was not said": join(hello("good"), frame(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: goawayPing}}})),
	}
}

// Whatever a peer says before it goes, and however its connection ends, no count, list or room is left of it: neither
// of the connection, nor, once its stream has lost its place, of the stream.
func TestReceiver_IsEmptyAfterEachWayToEnd(t *testing.T) {
	for name, sent := range waysToEnd(t) {
		t.Run(name, func(t *testing.T) {
			r := start(t, Config{
				WindowMessages: 8, WindowBytes: 1 << 10, DeadAfter: time.Hour,
				Authenticate: func(_ context.Context, p Peer) (string, error) {
					if p.Token != "good" {
						return "", errors.New("no")
					}
					return p.Token, nil
				},
				Authorize: func(_ context.Context, a Access) error {
					if a.Topic != "a" {
						return errors.New("no")
					}
					return nil
				},
			}, testkit.NewPipeListener())
			budget := r.cfg.Budget.Free()
			topic := r.Topic("a")
			m, window := topic.Join("g", func() {}), topic.Window()
			idle := window.Idle()
			c := newConn(r, testkit.NewScriptedConn(sent))
			started, _ := r.startConn(c)
			require.True(t, started)
			<-c.ended
			require.Empty(t, r.conns)
			require.Zero(t, r.counts.admitted)
			require.Zero(t, r.counts.refused)
			require.Empty(t, r.counts.perHost)
			require.Equal(t, idle, window.Idle(), "it shares the window with none")

			for d, _, ok := m.Take(); ok; d, _, ok = m.Take() {
				m.Settle(d)
			}
			require.Zero(t, window.Held())
			all := window.Size()
			require.Equal(t, all, window.Take(all), "none waits in line")
			window.Release(all)
			require.Zero(t, r.unheardBytes.Load())

			m.Leave()
			topic.Drop("g")
			r.mu.Lock()
			defer r.mu.Unlock()
			r.evictLocked((*stream).abandoned, "")
			require.Zero(t, r.streamCount)
			require.Empty(t, r.streams)
			require.Empty(t, r.publishers)
			require.Empty(t, r.unheard)
			require.Empty(t, r.topics)
			require.Equal(t, budget, r.cfg.Budget.Free())
		})
	}
}

// A stream that waits in line for more than there is leaves: those behind it get what there is for them at once.
func TestStream_LeavesTheLineWithItsConnection(t *testing.T) {
	r := listen(t, Config{WindowMessages: 8, WindowBytes: 1 << 10})
	join(r, "a")
	window := r.Topic("a").Window()
	all := window.Take(window.Size())
	ask := func(publisher byte, least uint64) *conn {
		o := openOf(publisher)
		o.WantBytes, o.LeastBytes = least, least
		return opens(t, r, o)
	}
	large, small := ask(1, 1<<10), ask(2, 10)
	s := small.handles[1]
	require.Zero(t, s.outstanding())
	all.Messages, all.Bytes = all.Messages/2, all.Bytes/2
	window.Release(all)
	require.Zero(t, s.outstanding(), "the line goes on in its order")
	large.terminate(nil)
	require.NotZero(t, s.outstanding())
	small.terminate(nil)
}

// A stream is taken back while a grant for it is on its way: the room goes back.
func TestStream_TakesNoGrantWhenItWasTakenBack(t *testing.T) {
	r := listen(t, Config{})
	join(r, "a")
	s, _, refused := r.open(openOf(1), "")
	require.Nil(t, refused)
	window := s.topic.Window()
	all := window.Take(window.Size())
	claim := &flow.Claim{}
	s.claim = claim
	s.withdraw(false)
	s.granted(claim, all)
	require.Zero(t, s.outstanding())
	require.Zero(t, window.Held())
}
