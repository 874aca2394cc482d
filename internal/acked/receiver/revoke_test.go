package receiver

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// opensMoving is opens with a tenure, on a connection that moves streams.
func opensMoving(t *testing.T, r *Receiver, handle, tenure, epoch uint64) *conn {
	t.Helper()
	c := newConn(r, testkit.NewScriptedConn(nil))
	c.moves = true
	r.mu.Lock()
	r.conns[c] = struct{}{}
	require.Empty(t, r.counts.add(c.host, &r.cfg))
	r.mu.Unlock()
	o := openOf(1)
	o.Handle, o.Tenure, o.Epoch = handle, tenure, epoch
	require.NoError(t, c.open(o))
	return c
}

func receives(t *testing.T, c *conn, handle, first uint64, messages ...string) {
	t.Helper()
	f := &session.PublishFrame{Handle: handle, First: first}
	for _, m := range messages {
		f.Messages = append(f.Messages, []byte(m))
		f.Bytes += session.EncodedSize(len(m))
	}
	s, room := c.handles[handle], session.Amount{Messages: len(messages), Bytes: f.Bytes}
	s.mu.Lock()
	s.in.Grant(room)
	s.mu.Unlock()
	s.topic.Window().Take(room)
	require.NoError(t, s.publish(c, f))
}

// locked asks an Inbound with the stream's lock held, as the stream writes acks meanwhile.
func locked[T any](s *stream, ask func(*session.Inbound) T) T {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ask(s.in)
}

func TestReceiver_HigherTenureBeginsAnew(t *testing.T) {
	r := listen(t, Config{})
	m := join(r, "a")
	c := opensMoving(t, r, 1, 2, 1)
	receives(t, c, 1, 1, "one", "two", "three")
	d, _, ok := m.Take()
	require.True(t, ok)
	old := c.handles[1]

	again := opensMoving(t, r, 1, 3, 1) // another connection, as the first is dead
	s := again.handles[1]
	require.NotSame(t, old, s)
	require.EqualValues(t, 1, locked(s, (*session.Inbound).Next), "all of it has to be sent again")
	require.Zero(t, r.Topic("a").Backlog("g"), "what no member has of the old tenure is given to none")
	m.Settle(d)
	require.EqualValues(t, 1, locked(s, (*session.Inbound).Next))
	receives(t, again, 1, 1, "one")
	d, _, ok = m.Take()
	require.True(t, ok)
	require.Equal(t, "one", string(d.Message()))
	m.Settle(d)
	require.True(t, locked(s, (*session.Inbound).Idle))

	older := newConn(r, testkit.NewScriptedConn(nil))
	o := openOf(1)
	o.Tenure = 2
	s2, _, refused := r.open(o, "")
	require.Nil(t, s2)
	require.Equal(t, wire.Code_CODE_FENCED, session.CodeOf(refused))
	_ = older.nc.Close()

	restarted := opensMoving(t, r, 1, 1, 2) // a sender that was restarted need not know its tenure
	require.Same(t, s, restarted.handles[1])
}

func TestReceiver_RevokeNeedsTheSecret(t *testing.T) {
	r := listen(t, Config{})
	join(r, "a")
	c := opensMoving(t, r, 1, 1, 1)
	receives(t, c, 1, 1, "one")
	o := openOf(1)
	revoke := &wire.Revoke{Handle: 9, Publisher: o.Publisher, Secret: make([]byte, 16), Epoch: 1, Stream: 1, Topic: "a", Tenure: 2}
	revoke.Secret[0] = 1
	require.Nil(t, r.findRevoked(revoke, ""))
	revoke.Secret[0] = 0
	require.Nil(t, r.findRevoked(revoke, "another"))
	revoke.Tenure = 1
	require.Nil(t, r.findRevoked(revoke, ""), "it has that tenure")
	revoke.Tenure = 2
	require.Same(t, c.handles[1], r.findRevoked(revoke, ""))
	revoke.Tenure, revoke.Epoch = 1, 2
	require.Same(t, c.handles[1], r.findRevoked(revoke, ""), "tenures count from the epoch on")
}

func TestReceiver_ForgetsARevokedStreamWhenItIsReleased(t *testing.T) {
	r := listen(t, Config{})
	m := join(r, "a")
	c := opensMoving(t, r, 1, 1, 1)
	receives(t, c, 1, 1, "one", "two")
	d, _, ok := m.Take()
	require.True(t, ok)
	revoke := &wire.Revoke{Handle: 1, Publisher: openOf(1).Publisher, Secret: make([]byte, 16), Epoch: 1, Stream: 1, Topic: "a", Tenure: 2}
	require.NoError(t, c.revoke(revoke))
	s := c.handles[1]
	require.Equal(t, 1, s.inHandLocked())
	require.Equal(t, 1, s.onlyCopiesOf(), "what a member has")
	m.Settle(d)
	require.Zero(t, s.inHandLocked())
	c.release(1)
	require.Empty(t, r.publishers)
	require.Zero(t, r.streamCount)
	require.Zero(t, r.Topic("a").Window().Held())
}

// onlyCopiesOf is onlyCopies, if no sender keeps the messages.
func (s *stream) onlyCopiesOf() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heldLocked()
}

// TestReceiver_HigherTenureKnowsWhatAGroupHandled, and gives that to the others alone.
func TestReceiver_HigherTenureKnowsWhatAGroupHandled(t *testing.T) {
	r := listen(t, Config{Dedupe: newMemoryStore()})
	prompt, slow := r.Topic("a").Join("prompt", func() {}), r.Topic("a").Join("slow", func() {})
	c := opensMoving(t, r, 1, 1, 1)
	receives(t, c, 1, 1, "one", "two")
	d, _, ok := prompt.Take()
	require.True(t, ok)
	prompt.Settle(d)

	again := opensMoving(t, r, 1, 2, 1)
	receives(t, again, 1, 1, "one", "two")
	d, _, ok = prompt.Take()
	require.True(t, ok)
	require.Equal(t, "two", string(d.Message()))
	d, _, ok = slow.Take()
	require.True(t, ok)
	require.Equal(t, "one", string(d.Message()))
}

// TestReceiver_SaysAtOnceThatTheLastMessageCameBack: the stream waits for nothing else.
func TestReceiver_SaysAtOnceThatTheLastMessageCameBack(t *testing.T) {
	r := listen(t, Config{})
	m := join(r, "a")
	c := opensMoving(t, r, 1, 1, 1)
	receives(t, c, 1, 1, "one")
	d, _, ok := m.Take()
	require.True(t, ok)
	o := openOf(1)
	require.NoError(t, c.revoke(&wire.Revoke{
		Handle: 1, Publisher: o.Publisher, Secret: make([]byte, 16), Epoch: 1, Stream: 1, Topic: "a", Tenure: 2,
	}))
	written := func() int { return len(c.nc.(*testkit.ScriptedConn).Written()) }
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c.flusher.Sync(ctx) // what was to be said until now
	before := written()
	m.Return(d)
	require.Eventually(t, func() bool { return written() > before }, 30*time.Second, time.Millisecond)
}

// A sender that wants no more answers of a stream stays without, whatever it asks for later.
func TestStream_StaysVoid(t *testing.T) {
	r := listen(t, Config{})
	c := opensMoving(t, r, 1, 1, 1)
	s := c.handles[1]
	s.answerRevoke(c, 1, true)
	s.answerRevoke(c, 1, false)
	require.True(t, s.isVoid())
	c.terminate(nil)
}
