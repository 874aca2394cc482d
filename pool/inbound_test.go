package pool

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestListener_CallbackErrorIsLoggedAndTheConnectionGoesOn(t *testing.T) {
	testkit.CheckLeaks(t)
	log, got, failure := testkit.NewLog(), make(chan string, 2), errors.New("no good")
	l := startListener(t, ListenerConfig{Logger: log, Callback: func(m []byte) error {
		got <- string(m)
		return failure
	}})
	peer := newPeerClient(t, l)
	for _, m := range []string{"one", "two"} {
		peer.send([]byte(m))
		assert.Equal(t, m, testkit.Receive(t, got))
		line := log.Next(t, "error")
		assert.Equal(t, failure, line.Err)
		assert.NotContains(t, fmt.Sprint(line), m, "payloads are never logged")
	}
}

func TestListener_CallbackThatPanicsFailsOnlyItsMessage(t *testing.T) {
	testkit.CheckLeaks(t)
	log, got := testkit.NewLog(), make(chan string, 1)
	l := startListener(t, ListenerConfig{Logger: log, Callback: func(m []byte) error {
		if string(m) == "bad" {
			panic("callback")
		}
		got <- string(m)
		return nil
	}})
	peer := newPeerClient(t, l)
	peer.send([]byte("bad"))
	assert.ErrorContains(t, log.Next(t, "error").Err, "callback")
	peer.send([]byte("good"))
	assert.Equal(t, "good", testkit.Receive(t, got), "the connection stands")
}

func TestListener_MessagesOfTheChannelBelongToTheReceiver(t *testing.T) {
	testkit.CheckLeaks(t)
	messages := make(chan []byte, 1)
	l := startListener(t, ListenerConfig{Messages: messages})
	peer := newPeerClient(t, l)
	const count = 2000
	go func() { // ends after the last message
		for i := range count {
			_, _ = peer.conn.Write(peerFrame(width4096, patterned(i)))
		}
	}()
	var kept [][]byte
	for range count {
		kept = append(kept, testkit.Receive(t, messages))
	}
	for i, m := range kept {
		require.Equal(t, string(patterned(i)), string(m))
	}
}

func TestListener_FullChannelHoldsThePeerBackAndCloseReportsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket, messages := testkit.NewPipeListener(), make(chan []byte, 1)
		l := startListener(t, ListenerConfig{Listen: socket.Listen, Messages: messages})
		conn := socket.Connect()
		stream := append(peerFrame(width4096, []byte("a")), peerFrame(width4096, []byte("b"))...)
		_, err := conn.Write(append(stream, peerFrame(width4096, []byte("c"))...))
		require.NoError(t, err)
		blocked := make(chan error, 1)
		go func() { // ends when the listener closes the connection
			_, err := conn.Write(peerFrame(width4096, []byte("d")))
			blocked <- err
		}()
		synctest.Wait()
		assert.Empty(t, blocked, "it is not read from")
		start := time.Now()
		err = l.Close()
		assert.Equal(t, defaultCloseTimeout, time.Since(start))
		assert.ErrorIs(t, err, ErrCloseTimeout)
		assert.ErrorContains(t, err, "2 received messages were dropped")
		assert.Error(t, <-blocked)
		assert.Equal(t, "a", string(<-messages))
		assert.Empty(t, messages)
	})
}

func TestListener_FrameThatHasBegunMustEndInTime(t *testing.T) {
	whole := peerFrame(width4096, []byte("whole"))
	begun := peerFrame(width4096, []byte("never whole"))
	cases := map[string][]byte{
		"first of the connection": begun[:1],
		"body missing":            begun[:3],
		"behind a whole one":      append(append([]byte{}, whole...), begun[:5]...),
	}
	for _, codec := range []framing.Codec{nil, must(framing.NewVarint(4096))} {
		for name, begins := range cases {
			if codec != nil && name == "behind a whole one" {
				begins = []byte{2, 'o', 'k', 9, 'x'}
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					socket, log := testkit.NewPipeListener(), testkit.NewLog()
					startListener(t, ListenerConfig{
						Listen: socket.Listen, Logger: log, Callback: ignore, FrameTimeout: 10 * time.Second, Codec: codec,
					})
					conn := socket.Connect()
					time.Sleep(time.Hour) // silence between messages is no offence
					start := time.Now()
					_, err := conn.Write(begins)
					require.NoError(t, err)
					time.Sleep(6 * time.Second)
					_, err = conn.Write([]byte{0}) // a trickle does not prolong it
					require.NoError(t, err)
					_, err = conn.Read(make([]byte, 1))
					assert.Error(t, err)
					assert.Equal(t, 10*time.Second, time.Since(start))
					assert.ErrorIs(t, log.Next(t, "error").Err, errFrameTimeout)
				})
			})
		}
	}
}

func TestListener_SlowButSteadyPeerIsNotEnded(t *testing.T) {
	for _, codec := range []framing.Codec{must(framing.NewBuffStreams(0)), must(framing.NewVarint(4096))} {
		synctest.Test(t, func(t *testing.T) {
			socket, got := testkit.NewPipeListener(), make(chan string, 10)
			startListener(t, ListenerConfig{Listen: socket.Listen, Callback: collect(got), FrameTimeout: 10 * time.Second, Codec: codec})
			conn := socket.Connect()
			var stream []byte
			for range 20 {
				stream = must(framing.AppendFrame(stream, codec, []byte("slow")))
			}
			// Reads never end where frames do, and the whole takes far more than FrameTimeout.
			for len(stream) > 0 {
				n := min(5, len(stream))
				_, err := conn.Write(stream[:n])
				require.NoError(t, err)
				stream = stream[n:]
				time.Sleep(4 * time.Second)
				for len(got) > 0 {
					assert.Equal(t, "slow", <-got)
				}
			}
			time.Sleep(time.Hour)
			_, err := conn.Write(must(framing.AppendFrame(nil, codec, []byte("after an hour"))))
			require.NoError(t, err)
			assert.Equal(t, "after an hour", <-got)
			require.NoError(t, conn.Close())
		})
	}
}

// FrameTimeout is about progress, not about the size of a message: one that takes many times as long arrives, if it does
// not drip.
func TestListener_ALargeMessageOnASlowLink(t *testing.T) {
	codec := must(framing.NewVarint(1 << 20))
	message := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	for rate, arrives := range map[int]bool{4 << 10: true, 512: false} { // bytes a second
		synctest.Test(t, func(t *testing.T) {
			socket, got := testkit.NewPipeListener(), make(chan string, 1)
			startListener(t, ListenerConfig{Listen: socket.Listen, Callback: collect(got), FrameTimeout: 10 * time.Second, Codec: codec})
			conn := socket.Connect()
			stream := must(framing.AppendFrame(nil, codec, message))
			for len(stream) > 0 {
				n := min(rate, len(stream))
				if _, err := conn.Write(stream[:n]); err != nil {
					break
				}
				stream = stream[n:]
				time.Sleep(time.Second)
			}
			require.Equal(t, arrives, len(stream) == 0)
			if arrives {
				require.Equal(t, string(message), <-got)
			}
			require.NoError(t, conn.Close())
		})
	}
}

func TestListener_IdleTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket, log := testkit.NewPipeListener(), testkit.NewLog()
		startListener(t, ListenerConfig{Listen: socket.Listen, Logger: log, Callback: ignore, IdleTimeout: time.Minute})
		conn := socket.Connect()
		start := time.Now()
		for range 3 {
			time.Sleep(59 * time.Second)
			_, err := conn.Write(peerFrame(width4096, nil))
			require.NoError(t, err)
		}
		_, err := conn.Read(make([]byte, 1))
		assert.Error(t, err)
		assert.Equal(t, 3*59*time.Second+time.Minute, time.Since(start))
		assert.Equal(t, errIdle, log.Next(t, "info").Fields["err"])
	})
}

func TestListener_FloodOfEmptyMessagesIsSlowedDownAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket, got := testkit.NewPipeListener(), 0
		startListener(t, ListenerConfig{Listen: socket.Listen, MaxEmptyMessages: 100, Callback: func([]byte) error { got++; return nil }})
		conn := socket.Connect()
		start := time.Now()
		for range 1000 {
			_, err := conn.Write(peerFrame(width4096, nil))
			require.NoError(t, err)
		}
		synctest.Wait()
		assert.Equal(t, 1000, got)
		assert.Equal(t, 9*time.Second, time.Since(start).Round(time.Second))

		// With content between them they are no flood.
		time.Sleep(time.Minute)
		start = time.Now()
		for range 1000 {
			_, err := conn.Write(append(peerFrame(width4096, nil), peerFrame(width4096, []byte("x"))...))
			require.NoError(t, err)
		}
		assert.Zero(t, time.Since(start))
		require.NoError(t, conn.Close())
	})
}

func TestListener_AdmitDecidesBeforeTheFirstMessage(t *testing.T) {
	testkit.CheckLeaks(t)
	server, client := testkit.SelfSignedTLS(t)
	refusal, log, got := errors.New("not today"), testkit.NewLog(), make(chan string, 10)
	admitted := make(chan bool, 2)
	admitted <- false
	admitted <- true
	l := startListener(t, ListenerConfig{
		TLSConfig: server, Logger: log, Callback: collect(got),
		Admit: func(ctx context.Context, conn net.Conn) error {
			_, bounded := ctx.Deadline()
			assert.True(t, bounded)
			assert.True(t, conn.(*tls.Conn).ConnectionState().HandshakeComplete)
			if !<-admitted {
				return refusal
			}
			return nil
		},
	})
	send := func(m string) *tls.Conn {
		conn, err := tls.Dial("tcp", l.Addr().String(), client)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		_, err = conn.Write(peerFrame(width4096, []byte(m)))
		require.NoError(t, err)
		return conn
	}
	peerClient{t, send("refused")}.ended()
	assert.Equal(t, refusal, log.Next(t, "info").Fields["err"])
	send("admitted")
	assert.Equal(t, "admitted", testkit.Receive(t, got))
}
