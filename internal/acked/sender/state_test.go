package sender

import (
	"context"
	"crypto/tls"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// is fails the test if a Sender is not, or does not say that it is, in a state.
func is(t *testing.T, s *Sender, want State) {
	t.Helper()
	synctest.Wait()
	require.Equal(t, want, s.State())
	told, _, _ := s.Status()
	require.Equal(t, want, told, "what watchers are told")
}

// each is a BackOff of equal waits.
func each(wait time.Duration) func() backoff.BackOff {
	return func() backoff.BackOff { return backoff.NewConstantBackOff(wait) }
}

// The state follows each step: of an attempt that fails, of the greeting, of the end of a connection, and of Close.
func TestSender_StateFollowsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		s := start(t, Config{MaxMessageSize: maxMessage, Dial: network.Dial, HandshakeTimeout: time.Hour, Backoff: each(time.Second)})
		is(t, s, Idle)
		network.SetDown(true)
		_, err := publish(t, s)
		require.NoError(t, err)
		is(t, s, Failed)
		network.SetDown(false)
		time.Sleep(time.Second)
		conn := accept(network)
		is(t, s, Connecting)
		say(t, conn, welcome())
		is(t, s, Ready)
		require.NoError(t, conn.Close())
		is(t, s, Failed)
		time.Sleep(time.Second)
		conn = accept(network)
		is(t, s, Connecting)
		say(t, conn, welcome())
		is(t, s, Ready)
		say(t, conn, &wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{}}})
		is(t, s, Draining)
		require.NoError(t, conn.Close())
		is(t, s, Failed)
		s.Close()
		told, _, _ := s.Status()
		require.Equal(t, Idle, told)
	})
}

// A Sender that is to stay connected comes back without messages, until it need not.
func TestSender_UndialEndsWhatDialBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		s := start(t, Config{MaxMessageSize: maxMessage, Dial: network.Dial, Backoff: each(time.Second)})
		s.Dial()
		for range 2 {
			conn := accept(network)
			say(t, conn, welcome())
			is(t, s, Ready)
			require.NoError(t, conn.Close())
			time.Sleep(time.Second)
		}
		conn := accept(network)
		s.Undial()
		require.NoError(t, conn.Close())
		time.Sleep(time.Hour)
		require.Equal(t, 3, network.Dialed())
	})
}

// A peer that says nothing any more loses its connection, though that still takes what is written.
func TestSender_EndsAConnectionThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		s := start(t, Config{MaxMessageSize: maxMessage, Dial: network.Dial, Backoff: each(time.Hour)})
		_, err := publish(t, s)
		require.NoError(t, err)
		conn := <-network.Servers
		ended := make(chan struct{})
		go func() { // ends with the connection
			_, _ = io.Copy(io.Discard, conn)
			close(ended)
		}()
		say(t, conn, welcome())
		is(t, s, Ready)
		for began := time.Now(); time.Since(began) < s.cfg.DeadAfter+time.Second; { // as a Manager does
			time.Sleep(busyInterval)
			s.Tick(time.Now())
		}
		synctest.Wait()
		select {
		case <-ended:
		default:
			require.Fail(t, "the connection goes on")
		}
	})
}

// An address at which TLS does not begin is tried last the next time.
func TestSender_AvoidsAnAddressWithoutItsTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		s := start(t, Config{Dial: network.Dial, TLS: &tls.Config{MinVersion: tls.VersionTLS13}, Backoff: each(time.Hour)})
		_, err := publish(t, s)
		require.NoError(t, err)
		require.NoError(t, accept(network).Close())
		synctest.Wait()
		require.Equal(t, []string{"pipe"}, s.avoid)
	})
}

// A connection that flaps is logged when it is lost first, with the attempts when it is back, and then once a minute: a
// line that says that it is back follows one that says that it was lost, and no other.
func TestSender_LogsAConnectionThatFlapsOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, log := testkit.NewNetwork(), testkit.NewLog()
		s := start(t, Config{MaxMessageSize: maxMessage, Dial: network.Dial, Backoff: each(time.Second), Logger: log})
		lines := func() (all []string) {
			synctest.Wait()
			for len(log.Lines) > 0 {
				all = append(all, (<-log.Lines).Msg)
			}
			return all
		}
		network.SetDown(true)
		_, err := publish(t, s)
		require.NoError(t, err)
		require.Equal(t, []string{"Connection lost, reconnecting"}, lines())
		time.Sleep(3500 * time.Millisecond) // three more attempts
		network.SetDown(false)
		conn := accept(network)
		say(t, conn, welcome())
		synctest.Wait()
		back := <-log.Lines
		require.Equal(t, "Connected again", back.Msg)
		require.Equal(t, 4, back.Fields["attempts"])
		require.Equal(t, 4*time.Second, back.Fields["after"])
		for range 3 {
			require.NoError(t, conn.Close())
			conn = accept(network)
			say(t, conn, welcome())
			require.Empty(t, lines())
		}
		time.Sleep(time.Minute)
		require.NoError(t, conn.Close())
		synctest.Wait()
		lost := <-log.Lines
		require.Equal(t, 7, lost.Fields["count"], "since the line before")
		conn = accept(network)
		say(t, conn, welcome())
		require.Equal(t, []string{"Connected again"}, lines())
		require.NoError(t, conn.Close())
	})
}

// A Stream that is asked to move, and then to stay, moves no more.
func TestStream_StaysWhenItIsAskedTo(t *testing.T) {
	var mover Mover
	from, to := start(t, Config{Mover: &mover}), start(t, Config{Mover: &mover})
	st := from.NewStream(StreamConfig{Topic: "t"})
	from.mu.Lock()
	st.target = to
	from.mu.Unlock()
	require.True(t, st.moving())
	st.MoveTo(from)
	require.False(t, st.moving())
	require.Same(t, from, st.Sender())
}

// A Stream gives messages away while it is waited for: the wait is over when they are settled where they went, too.
func TestStream_WaitsForWhatItHasGivenAway(t *testing.T) {
	var mover Mover
	dial, accept := pipe(t)
	dialHeir, acceptHeir := pipe(t)
	from, to := start(t, Config{Mover: &mover, Dial: dial}), start(t, Config{Mover: &mover, Dial: dialHeir})
	st, heir := from.NewStream(StreamConfig{Topic: "t"}), to.NewStream(StreamConfig{Topic: "t"})
	for _, one := range []*Stream{st, heir} {
		_, _, err := one.Publish(t.Context(), acktest.BatchOf(t, "message"), session.Level(0), 0)
		require.NoError(t, err)
	}
	waits := func(s *Sender) {
		t.Helper()
		require.Eventually(t, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.conditions) == 1
		}, 30*time.Second, time.Millisecond)
	}
	drained := make(chan error, 1)
	go func() { drained <- st.Drain(context.Background()) }() // ends when both are settled
	waits(from)
	from.mu.Lock()
	st.heirs, st.shares = []*Stream{heir}, 1 // as Divide does
	from.mu.Unlock()
	_, done := listener(t, accept(), true, true)
	waits(to)
	require.Empty(t, drained)
	_, doneHeir := listener(t, acceptHeir(), true, true)
	require.NoError(t, testkit.Receive(t, drained))
	from.Close()
	to.Close()
	<-done
	<-doneHeir
}
