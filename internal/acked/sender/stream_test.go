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
	var b session.Batch
	_, ok, err := b.Append(1<<20, func(dst []byte) ([]byte, error) { return append(dst, "x"...), nil })
	require.True(t, ok)
	require.NoError(t, err)
	_, _, err = st.Publish(t.Context(), &b, 0, 0)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return st.Sender() == to }, 30*time.Second, time.Millisecond)
	require.Equal(t, 1, st.Unsettled())
}

// TestPublication_TakesBackByTheOrderOfTheCall: a call that has waited for room has several waits, each of some of its messages.
func TestPublication_TakesBackByTheOrderOfTheCall(t *testing.T) {
	var p publication
	w := &session.Waiter{At: 5, First: 10, Last: 12, Back: session.Range{First: 13, Last: 15}}
	p.takeBack(w)
	require.Equal(t, []session.Range{{First: 8, Last: 10}}, p.back)
	require.Zero(t, w.Back, "it comes back once")
}
