package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// A call that gives up, as its time or its context is over, leaves neither a place in a line nor a condition behind: else what
// comes later would wait behind it, or the Sender would look after it for ever.
func TestSender_ACallThatGivesUpLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		network.SetDown(true)
		s := start(t, Config{Dial: network.Dial, WindowMessages: 1})
		_, _, err := s.Publish(t.Context(), "a", acktest.BatchOf(t, "fills the window"), 0, 0)
		require.NoError(t, err)
		for name, call := range map[string]func(ctx context.Context) error{
			"room in time": func(context.Context) error {
				_, _, err := s.Publish(context.Background(), "a", acktest.BatchOf(t, "message"), session.Received, time.Second)
				return err
			},
			"room": func(ctx context.Context) error {
				_, _, err := s.Publish(ctx, "a", acktest.BatchOf(t, "message"), session.Received, 0)
				return err
			},
			"Flush":    func(ctx context.Context) error { return s.Flush(ctx, "a") },
			"Drain":    func(ctx context.Context) error { return s.Drain(ctx, "a") },
			"FlushAll": s.FlushAll,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			err := call(ctx)
			cancel()
			if name == "room" {
				require.ErrorIs(t, err, context.DeadlineExceeded, name)
			} else {
				require.ErrorIs(t, err, ErrTimeout, name)
			}
			require.Zero(t, inLine(s), name)
			require.Empty(t, s.conditions, name)
		}
	})
}

// Something that gets under way is looked after soon, whatever the pause was before.
func TestTicker_WakesFromAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ticker, stop := NewTicker(time.Minute), make(chan struct{})
		ticks := make(chan time.Time, 100)
		go ticker.Run(stop, func(now time.Time) bool { // ends with stop
			ticks <- now
			return false
		})
		first := <-ticks
		second := <-ticks
		require.Equal(t, idleInterval, second.Sub(first))
		synctest.Wait()
		ticker.wake()
		require.Equal(t, busyInterval, (<-ticks).Sub(second))
		close(stop)
	})
}

// What no other attempt can change ends every wait; what may pass does not.
func TestDefinite(t *testing.T) {
	for code := range wire.Code_name {
		c := wire.Code(code)
		want := c == wire.Code_CODE_UNAUTHENTICATED || c == wire.Code_CODE_FORBIDDEN || c == wire.Code_CODE_VERSION
		require.Equal(t, want, definite(fmt.Errorf("dial: %w", session.NewPeerError(c, "no"))), c)
	}
	require.True(t, definite(&InsecureTokenError{}))
	require.True(t, definite(&netio.DialDeniedError{}))
	require.False(t, definite(errors.New("refused")))
}

// at is a connection from an address.
type at struct {
	net.Conn
	address string
}

func (a at) RemoteAddr() net.Addr { return &net.UnixAddr{Name: a.address} }

// The addresses that got nowhere are tried last, until one has welcomed the Sender; there are never many of them.
func TestSender_AvoidsWhatGotNowhere(t *testing.T) {
	var s Sender
	for i := range 3 * maxAvoided {
		s.noteAddress(at{address: fmt.Sprint(i)}, false)
	}
	require.Len(t, s.avoid, maxAvoided)
	s.noteAddress(at{address: "40"}, false)
	require.Len(t, s.avoid, maxAvoided, "once")
	require.Equal(t, "40", s.avoid[maxAvoided-1])
	s.noteAddress(at{address: "41"}, true)
	require.Empty(t, s.avoid)
}
