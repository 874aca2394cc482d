package receiver

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// told keeps what a Receiver tells its hooks. It clears what depends on the clock.
type told struct {
	mu     sync.Mutex
	events []any
}

func (w *told) note(e any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

// take returns what came since the call before.
func (w *told) take() []any {
	w.mu.Lock()
	defer w.mu.Unlock()
	events := w.events
	w.events = nil
	return events
}

func (w *told) OnAccepted(e hooks.Accepted)   { w.note(e) }
func (w *told) OnRefused(e hooks.Refused)     { w.note(e) }
func (w *told) OnForgotten(e hooks.Forgotten) { w.note(e) }
func (w *told) OnReceived(e hooks.Received)   { w.note(e) }
func (w *told) OnDuplicate(e hooks.Duplicate) { w.note(e) }
func (w *told) OnLost(e hooks.Lost) {
	if e.Lasted < 0 || e.Lasted > time.Hour {
		panic("it lasted since it was welcomed")
	}
	e.Lasted = 0
	w.note(e)
}

// tellsHere returns a Config of the listener "here" whose hooks are w.
func (w *told) tellsHere(cfg Config) Config {
	cfg.Address, cfg.Hooks = "here", hook.NewSet([]hooks.Hook{w}, testkit.NewLog())
	return cfg
}

// A frame of four messages comes in part again: those that are new count as received, with their bytes, the others as
// duplicates, and a frame that has none of a kind says nothing of that.
func TestWatch_CountsWhatIsNewAndWhatCameBefore(t *testing.T) {
	var w told
	r := listen(t, w.tellsHere(Config{}))
	join(r, "a")
	o := openOf(1)
	o.WantMessages, o.WantBytes = 100, 1000
	c := opens(t, r, o)
	s := c.handles[1]
	publish := func(first uint64, messages ...string) {
		f := &session.PublishFrame{Handle: 1, First: first}
		for _, m := range messages {
			f.Messages = append(f.Messages, []byte(m))
			f.Bytes += session.EncodedSize(len(m))
		}
		require.NoError(t, s.publish(c, f))
	}
	received := func(n int, m ...string) hooks.Received {
		e := hooks.Received{Listener: "here", Topic: "a", Messages: n}
		for _, text := range m {
			e.Bytes += session.EncodedSize(len(text))
		}
		return e
	}
	publish(1, "a", "bbb")
	require.Equal(t, []any{received(2, "a", "bbb")}, w.take())
	publish(1, "a", "bbb", "ccccc", "dd")
	require.Equal(t, []any{hooks.Duplicate{Listener: "here", Topic: "a", Messages: 2}, received(2, "ccccc", "dd")}, w.take())
	publish(1, "a", "bbb", "ccccc", "dd")
	require.Equal(t, []any{hooks.Duplicate{Listener: "here", Topic: "a", Messages: 4}}, w.take())
	require.EqualValues(t, 4, r.counters.received.Load())
	require.EqualValues(t, 6, r.counters.duplicates.Load())
	c.terminate(nil)
}

// Each connection is told of: with its peer and principal if it was welcomed, and otherwise with why it was not, also
// where that is no more than that it was closed.
func TestWatch_TellsOfEachConnection(t *testing.T) {
	var w told
	r := start(t, w.tellsHere(Config{
		MaxConnections: 1, Authenticate: func(_ context.Context, p Peer) (string, error) { return p.Token, nil },
	}), testkit.NewPipeListener())
	hello := sealed(t, &wire.Frame{Body: &wire.Frame_Hello{Hello: &wire.Hello{
		Version: 1, MaxFrame: session.MinFrame, Token: []byte("alice"), Agent: "their software",
	}}})
	comes := func(sent []byte) {
		c := newConn(r, testkit.NewScriptedConn(sent))
		started, _ := r.startConn(c)
		require.True(t, started)
		<-c.ended
	}
	peer := testkit.NewScriptedConn(nil).RemoteAddr().String()

	comes(hello)
	require.Equal(t, []any{
		hooks.Accepted{Listener: "here", Peer: peer, Principal: "alice", Agent: "their software"},
		hooks.Lost{Address: peer, Listener: "here", Welcomed: true, Err: io.EOF},
	}, w.take())

	refused := func() error {
		events := w.take()
		require.Len(t, events, 1)
		e := events[0].(hooks.Refused)
		require.Equal(t, "here", e.Listener)
		require.Equal(t, peer, e.Peer)
		return e.Err
	}
	r.counts.admitted++ // another is there
	comes(hello)
	require.ErrorContains(t, refused(), "too many connections")
	comes(nil)
	require.ErrorContains(t, refused(), "too many connections", "it is why, though the peer has not waited to hear that")
	require.Zero(t, r.counts.refused, "they are gone")
	r.counts.admitted--

	comes(nil)
	require.Error(t, refused())
	c := newConn(r, testkit.NewScriptedConn(nil))
	c.noteEnd(nil)
	require.ErrorIs(t, refused(), errNotWelcomed)
}

// A Receiver that forgets streams to make room says how many, and whose that returns it has forgotten.
func TestWatch_TellsOfWhatIsForgotten(t *testing.T) {
	var w told
	r := listen(t, w.tellsHere(Config{MaxPublishers: 2}))
	join(r, "a")
	for publisher := range byte(2) {
		opens(t, r, openOf(publisher)).terminate(nil)
	}
	w.take()
	o := openOf(2)
	o.Base = 3 // it has sent two messages, in an earlier life of the Receiver
	c := opens(t, r, o)
	require.Equal(t, []any{
		hooks.Forgotten{Listener: "here", Streams: 2},
		hooks.Forgotten{Listener: "here", Streams: 1, Returned: true},
	}, w.take())
	r.tellForgotten()
	require.Empty(t, w.take(), "each is told of once")

	quiet := listen(t, Config{})
	opens(t, quiet, o).terminate(nil)
	require.Empty(t, quiet.forgotHooks, "nothing gathers without hooks")
	c.terminate(nil)
}

// A connection whose end says no more of a refusal than an error of the network is told of as refused, in print.
func TestWatch_PrintsWhyAConnectionWasRefused(t *testing.T) {
	var w told
	r := listen(t, w.tellsHere(Config{}))
	c := newConn(r, testkit.NewScriptedConn(nil))
	c.noteEnd(errors.New("a\x1bb"))
	e := w.take()[0].(hooks.Refused)
	require.ErrorContains(t, e.Err, "a")
	require.NotContains(t, e.Err.Error(), "\x1b")
}
