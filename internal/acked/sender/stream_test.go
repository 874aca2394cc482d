package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// TestStream_MovesNothingFromTLSToPlaintext, whatever it is asked.
func TestStream_MovesNothingFromTLSToPlaintext(t *testing.T) {
	var mover Mover
	secret, plain := start(t, Config{TLS: &tls.Config{MinVersion: tls.VersionTLS13}, Mover: &mover}), start(t, Config{Mover: &mover})
	st := secret.NewStream(StreamConfig{Topic: "t"})
	st.MoveTo(plain)
	require.Same(t, secret, st.Sender())
	require.False(t, st.moving())
	back := plain.NewStream(StreamConfig{Topic: "t"})
	back.MoveTo(secret)
	require.Same(t, secret, back.Sender())
}

// TestStream_LeavesAnAddressThatCannotBeReached with what was never sent, also where it is not known that nothing listens there.
func TestStream_LeavesAnAddressThatCannotBeReached(t *testing.T) {
	var mover Mover
	unreachable := func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route to host") }
	from := start(t, Config{Mover: &mover, Dial: unreachable, MoveAfter: time.Hour})
	to := start(t, Config{Mover: &mover, Dial: unreachable, MoveAfter: time.Hour})
	st := from.NewStream(StreamConfig{Topic: "t", Alternative: func(*Stream) *Sender { return to }})
	_, _, err := st.Publish(t.Context(), oneMessage(t), 0, 0)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return st.Sender() == to }, 30*time.Second, time.Millisecond)
	require.Equal(t, 1, st.Unsettled())
}

// oneMessage is a batch of it.
func oneMessage(t *testing.T) *session.Batch {
	var b session.Batch
	_, ok, err := b.Append(1<<20, func(dst []byte) ([]byte, error) { return append(dst, "x"...), nil })
	require.True(t, ok)
	require.NoError(t, err)
	return &b
}

// TestPublication_TakesBackByTheOrderOfTheCall: a call that has waited for room has several waits, each of some of its messages.
func TestPublication_TakesBackByTheOrderOfTheCall(t *testing.T) {
	var p publication
	w := &session.Waiter{At: 5, First: 10, Last: 12, Back: session.Range{First: 13, Last: 15}}
	p.takeBack(w)
	require.Equal(t, []session.Range{{First: 8, Last: 10}}, p.back)
	require.Zero(t, w.Back, "it comes back once")
}

// TestStream_HasNoRoomWhileItLeaves: policies choose another address then.
func TestStream_HasNoRoomWhileItLeaves(t *testing.T) {
	var mover Mover
	from, to := start(t, Config{Mover: &mover}), start(t, Config{Mover: &mover})
	st := from.NewStream(StreamConfig{Topic: "t"})
	require.False(t, st.NothingSent(), "it holds nothing")
	_, _, err := st.Publish(t.Context(), oneMessage(t), 0, 0)
	require.NoError(t, err)
	require.True(t, st.NothingSent())
	room, unsettled := st.Load()
	require.True(t, room)
	require.Equal(t, 1, unsettled)
	from.mu.Lock()
	st.target = to
	from.mu.Unlock()
	room, unsettled = st.Load()
	require.False(t, room)
	require.False(t, st.Room())
	require.Equal(t, 1, unsettled)
	require.False(t, st.NothingSent(), "it is on its way")
	from.mu.Lock()
	st.target = nil
	from.mu.Unlock()
}

// TestFetchedStream_MovesToAnotherThatIsThere alone, and leaves nothing where it was.
func TestFetchedStream_MovesToAnotherThatIsThere(t *testing.T) {
	var mover Mover
	from, to, closed := start(t, Config{Mover: &mover}), start(t, Config{Mover: &mover}), start(t, Config{Mover: &mover})
	closed.Close()
	f, err := from.Fetch(FetchConfig{Identity: session.Identity{Publisher: [16]byte{1}, Epoch: 1}, Stream: 1, Topic: "t", Base: 1})
	require.NoError(t, err)
	for _, no := range []*Sender{from, closed} {
		_, ok := f.MoveTo(no)
		require.False(t, ok)
	}
	_, ok := f.MoveTo(to)
	require.True(t, ok)
	require.Empty(t, from.fetched)
	require.Len(t, to.fetched, 1)
	require.True(t, from.Retire(true))
	_, ok = f.MoveTo(from)
	require.False(t, ok, "nothing begins there any more")
	f.End()
	require.Empty(t, to.fetched)
}
