package receiver

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// A stream is taken back while a member has its last message. However the member ends with that, the sender gets its
// final answer, once: it waits for nothing else.
func TestStream_AnswersARevokeWhenTheLastMessageEnds(t *testing.T) {
	for name, end := range map[string]func(*dispatch.Member, dispatch.Delivery){
		"handled":    func(m *dispatch.Member, d dispatch.Delivery) { m.Settle(d) },
		"refused":    func(m *dispatch.Member, d dispatch.Delivery) { m.Refuse(d, dispatch.Refusal{Undecodable: true}) },
		"given back": func(m *dispatch.Member, d dispatch.Delivery) { m.Return(d) },
	} {
		t.Run(name, func(t *testing.T) {
			r := listen(t, Config{})
			m := join(r, "a")
			c := opensMoving(t, r, 1, 1, 1)
			receives(t, c, 1, 1, "one", "two")
			d, _, ok := m.Take()
			require.True(t, ok)
			o := openOf(1)
			revoke := &wire.Revoke{Handle: 1, Publisher: o.Publisher, Secret: o.Secret, Epoch: 1, Stream: 1, Topic: "a", Tenure: 2}
			require.NoError(t, c.revoke(revoke))
			end(m, d)
			require.Nil(t, c.handles[1].revocation.answerTo)
			require.NoError(t, c.revoke(revoke), "it asks again")
			require.Nil(t, c.handles[1].revocation.answerTo)
			var inHand []uint64
			for _, frame := range written(t, c) {
				if f, ok := frame.(*wire.Returned); ok {
					inHand = append(inHand, f.InHand)
				}
			}
			require.Equal(t, []uint64{1, 0, 0}, inHand)
			c.terminate(nil)
		})
	}
}

// A stream begins anew on another connection: the one that had it is dead, and is closed.
func TestStream_AHigherTenureClosesTheConnectionThatHadIt(t *testing.T) {
	r := listen(t, Config{})
	join(r, "a")
	old := opensMoving(t, r, 1, 1, 1)
	now := opensMoving(t, r, 1, 2, 1)
	_, err := old.nc.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	_, err = now.nc.Read(make([]byte, 1))
	require.NotErrorIs(t, err, net.ErrClosed)
	old.terminate(nil)
	now.terminate(nil)
}

// What a store knows of a publisher is who it belongs to, also where a stranger came first with a stream of which the
// store knows nothing.
func TestReceiver_TheStoreKnowsWhomAPublisherBelongsTo(t *testing.T) {
	known := store.StreamID{Publisher: [16]byte{1}, Stream: 2, Topic: "a"}
	r := listen(t, Config{Dedupe: remembered{known: {Epoch: 5, Secret: [16]byte{9}}}})
	stranger := openOf(1)
	_, _, refused := r.open(stranger, "")
	require.Nil(t, refused)
	owner := openOf(1)
	owner.Stream, owner.Epoch, owner.Secret = 2, 5, append([]byte{9}, make([]byte, 15)...)
	_, _, refused = r.open(owner, "")
	require.Nil(t, refused)
	stranger.Epoch = 6
	_, _, refused = r.open(stranger, "")
	require.Equal(t, wire.Code_CODE_FENCED, session.CodeOf(refused))
}

// A sender has ended a stream, and goes on all the same: it keeps its messages as before.
func TestStream_IsKeptAgainWhenItsSenderGoesOn(t *testing.T) {
	r := listen(t, Config{})
	join(r, "a")
	c := opensMoving(t, r, 1, 1, 1)
	s := c.handles[1]
	receives(t, c, 1, 1, "one")
	c.release(1)
	require.False(t, s.Kept())
	require.NotNil(t, c.handles[1], "it has a message that is not settled")
	receives(t, c, 1, 2, "two")
	require.True(t, s.Kept())
	c.terminate(nil)
}

// Messages over the limit among others are rejected, and their room is free again.
func TestStream_MessagesOverTheLimitTakeNoRoom(t *testing.T) {
	r := listen(t, Config{MaxMessageSize: 10})
	m := join(r, "a")
	c := opensMoving(t, r, 1, 1, 1)
	large := string(make([]byte, 11))
	receives(t, c, 1, 1, "one", large, "three", large, large, "six")
	for range 3 {
		d, _, ok := m.Take()
		require.True(t, ok)
		m.Settle(d)
	}
	require.EqualValues(t, 3, r.counters.rejected.Load())
	s := c.handles[1]
	c.terminate(nil)
	require.Zero(t, s.topic.Window().Held())
}

// What a sender is not told to be rejected, and has itself, is answered for by it alone; what it does not keep is
// answered for at once, and takes no memory.
func TestStream_AnswersForWhatItsSenderDoesNotKeep(t *testing.T) {
	r := listen(t, Config{})
	endTopic(t, r, true)
	r.EphemeralTopic("a").Join("", func() {})
	r.mu.Lock()
	s := r.publishers[[16]byte{1}].streams[streamKey{1, "a"}]
	r.mu.Unlock()
	called := 0
	refusal := dispatch.Refusal{Bytes: 9, Unheard: func() { called++ }}
	keep := func(kept bool) func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.kept.Store(kept)
		return s.keepUnheardLocked(3, refusal)
	}
	require.NotNil(t, keep(false))
	require.Zero(t, r.unheardBytes.Load())
	require.Nil(t, keep(true))
	c := opens(t, r, openOf(1)) // the topic exists again: another stream takes its place
	require.NotSame(t, s, c.handles[1])
	require.Zero(t, called)
	require.Zero(t, r.unheardBytes.Load())
	c.terminate(nil)
}

// Why a connection ends is the last that is said on it, though there are acks to write, and it keeps no large buffer.
func TestConn_NothingFollowsAFailure(t *testing.T) {
	r := listen(t, Config{})
	join(r, "a")
	c := opensMoving(t, r, 1, 1, 1)
	c.mu.Lock()
	for range 100 {
		c.appendControlLocked(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Why: string(make([]byte, 100))}}})
	}
	c.mu.Unlock()
	c.flusher.Sync(t.Context())
	require.Greater(t, len(c.nc.(*testkit.ScriptedConn).Written()), 10_000)
	require.LessOrEqual(t, cap(c.out), 4<<10)
	receives(t, c, 1, 1, "one")
	c.flusher.Sync(t.Context())
	s := c.handles[1]
	s.mu.Lock()
	s.in.Settle(1, 1)
	s.markDirtyLocked()
	s.mu.Unlock()
	c.sendFailure(wire.Code_CODE_PROTOCOL, "why")
	frames := written(t, c)
	last, ok := frames[len(frames)-1].(*wire.Failure)
	require.True(t, ok, "%T", frames[len(frames)-1])
	require.Equal(t, "why", last.Reason)
	c.terminate(nil)
}

// After Close nothing goes into the store: its owner may have closed it.
func TestReceiver_CloseEndsItsCommitter(t *testing.T) {
	m := newMemoryStore()
	r := listen(t, Config{Dedupe: m})
	require.NoError(t, r.Close(t.Context()))
	require.ErrorIs(t, r.committer.commit(&stream{in: session.RestoreInbound(nil, 1)}), ErrClosed)
	require.Empty(t, m.saved)
}

// Who was refused, and why, is in the log: the peer learns no more than that.
func TestGuard_LogsWhomItRefuses(t *testing.T) {
	log := testkit.NewLog()
	why := errors.New("the directory says no")
	g := Guard{
		logger: log, address: "here", quiet: &netio.QuietBy{}, timeout: time.Minute,
		authenticate: func(context.Context, Peer) (string, error) { return "", why },
		authorize:    func(context.Context, Access) error { return why },
	}
	_, refused := g.Admit(t.Context(), Peer{Address: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}})
	require.NotNil(t, refused)
	require.NotNil(t, g.Allow(t.Context(), Access{Topic: "a", Address: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 1}}))
	for _, host := range []string{"10.0.0.1:1", "10.0.0.2:1"} {
		line := log.Next(t, "info")
		require.Equal(t, why.Error(), line.Fields["err"])
		require.Equal(t, host, line.Fields["peer"])
		require.Equal(t, "here", line.Fields["address"])
	}
}
