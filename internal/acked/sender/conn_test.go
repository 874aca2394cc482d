package sender

import (
	"context"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
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

// maxMessage is that of acktest.FuzzEncoder, with which the tests answer.
const maxMessage = 1024

// say writes a frame to a Sender.
func say(t *testing.T, conn net.Conn, f *wire.Frame) {
	t.Helper()
	s := acktest.Script{T: t, Enc: acktest.FuzzEncoder(t)}
	s.Control(f)
	_, err := conn.Write(s.Out)
	require.NoError(t, err)
}

func welcome() *wire.Frame {
	return &wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{
		Version: 1, MaxFrame: 1 << 17, MaxMessage: maxMessage,
	}}}
}

// accept takes the next connection, and drops what the Sender writes to it.
func accept(n *testkit.Network) net.Conn {
	conn := <-n.Servers
	go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
	return conn
}

func publish(t *testing.T, s *Sender) (int, error) {
	n, _, err := s.Publish(context.Background(), "a", acktest.BatchOf(t, "message"), 0, 0)
	return n, err
}

// The peer is silent, so that the TLS handshake cannot end: what the Sender has written by then is the first record of
// a handshake, and neither the token nor anything else.
func TestSender_WritesNothingBeforeTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		_, client := testkit.SelfSignedTLS(t)
		client.ServerName = "127.0.0.1"
		s := start(t, Config{
			Dial: network.Dial, TLS: client, HandshakeTimeout: time.Hour,
			Token: func(context.Context) (string, error) { return "hunter2", nil },
		})
		_, err := publish(t, s)
		require.NoError(t, err)
		conn := <-network.Servers
		record := make([]byte, 5)
		_, err = io.ReadFull(conn, record)
		require.NoError(t, err)
		require.EqualValues(t, 22, record[0], "a handshake record")
		hello := make([]byte, int(record[3])<<8|int(record[4]))
		_, err = io.ReadFull(conn, hello)
		require.NoError(t, err)
		require.NotContains(t, string(hello), "hunter2")
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute))) // in the time of the bubble
		_, err = conn.Read(record)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "the Sender waits for the peer")
		require.NoError(t, conn.Close())
	})
}

// countingBackOff counts its calls.
type countingBackOff struct{ next, resets atomic.Int32 }

func (b *countingBackOff) NextBackOff() time.Duration { b.next.Add(1); return time.Second }
func (b *countingBackOff) Reset()                     { b.resets.Add(1) }

// A peer that accepts and hangs up is met with growing intervals: only one that has welcomed the Sender resets them.
func TestSender_ResetsTheBackoffAfterAWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, b := testkit.NewNetwork(), &countingBackOff{}
		s := start(t, Config{
			MaxMessageSize: maxMessage, Dial: network.Dial, Backoff: func() backoff.BackOff { return b },
		})
		_, err := publish(t, s)
		require.NoError(t, err)
		for range 3 {
			require.NoError(t, accept(network).Close())
		}
		conn := accept(network)
		require.EqualValues(t, 3, b.next.Load())
		require.Zero(t, b.resets.Load())
		say(t, conn, welcome())
		synctest.Wait()
		require.EqualValues(t, 1, b.resets.Load())
		require.True(t, s.Connected())
		require.NoError(t, conn.Close())
	})
}

// halfWriter fails each write half way.
type halfWriter struct{ net.Conn }

func (halfWriter) Write(p []byte) (int, error) { return len(p) / 2, os.ErrDeadlineExceeded }

// A write that ends in the middle of a frame must not be followed by another on the same connection, whose peer still
// reads.
func TestSender_AHalfWrittenFrameEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		first := true
		s := start(t, Config{HandshakeTimeout: time.Hour, Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
			conn, err := network.Dial(ctx, n, a)
			if first && err == nil {
				first = false
				return halfWriter{conn}, nil
			}
			return conn, err
		}})
		_, err := publish(t, s)
		require.NoError(t, err)
		server, began := <-network.Servers, time.Now()
		_, err = server.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.Zero(t, time.Since(began), "not the handshake timeout ended it")
		time.Sleep(time.Second) // the backoff, in the time of the bubble
		synctest.Wait()
		require.Equal(t, 2, network.Dialed())
		require.NoError(t, accept(network).Close())
	})
}

// resetWriter fails each write: the peer has reset the connection. What it had written before can be read.
type resetWriter struct {
	net.Conn
	writes atomic.Int32
}

func (w *resetWriter) Write([]byte) (int, error) {
	w.writes.Add(1)
	return 0, &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.ECONNRESET)}
}

// A peer that ends has written its acks: they are read although a write has failed. The connection ends nevertheless, also where
// the reader hears nothing of the reset, and nothing else is written to it.
func TestSender_ReadsWhatCameBeforeAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, b, reset := testkit.NewNetwork(), &countingBackOff{}, &resetWriter{}
		s := start(t, Config{
			MaxMessageSize: maxMessage, Backoff: func() backoff.BackOff { return b },
			Dial: func(ctx context.Context, n, a string) (net.Conn, error) {
				conn, err := network.Dial(ctx, n, a)
				if reset.Conn == nil {
					reset.Conn = conn
					return reset, err
				}
				return conn, err
			},
		})
		_, err := publish(t, s)
		require.NoError(t, err)
		server, began := <-network.Servers, time.Now()
		synctest.Wait()
		require.EqualValues(t, 1, reset.writes.Load())
		say(t, server, welcome())
		synctest.Wait()
		require.EqualValues(t, 1, b.resets.Load(), "the frame was taken")
		_, err = publish(t, s)
		require.NoError(t, err)
		_, err = server.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		require.Equal(t, finishTimeout, time.Since(began))
		require.EqualValues(t, 1, reset.writes.Load())
		time.Sleep(time.Second) // the backoff, in the time of the bubble
		require.NoError(t, accept(network).Close())
	})
}

// After a definite refusal every Publish that waits returns at once, and the next adds no copy to the messages that
// stay. The Sender goes on trying: a welcome ends that.
func TestSender_ADefiniteRefusalEndsWaitsUntilAWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		s := start(t, Config{MaxMessageSize: maxMessage, Dial: network.Dial})
		type result struct {
			n   int
			err error
		}
		results := make(chan result, 1)
		go func() { // ends with Publish
			n, _, err := s.Publish(context.Background(), "a", acktest.BatchOf(t, "message"), session.Received, 0)
			results <- result{n, err}
		}()
		conn := accept(network)
		say(t, conn, &wire.Frame{Body: &wire.Frame_Failure{Failure: &wire.Failure{Code: wire.Code_CODE_UNAUTHENTICATED}}})
		var refused *session.PeerError
		got := <-results
		require.ErrorAs(t, got.err, &refused)
		require.Equal(t, 1, got.n, "the message stays")
		n, err := publish(t, s)
		require.ErrorAs(t, err, &refused)
		require.Zero(t, n)
		require.Equal(t, 1, s.Pending())
		require.NoError(t, conn.Close())

		conn = accept(network)
		say(t, conn, welcome())
		synctest.Wait()
		n, err = publish(t, s)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		require.NoError(t, conn.Close())
	})
}

// A call that waits for room when the peer refuses for good leaves the line: else every later one would wait behind it.
func TestSender_ADefiniteRefusalEmptiesTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		s := start(t, Config{MaxMessageSize: maxMessage, Dial: network.Dial, WindowMessages: 1})
		n, err := publish(t, s)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		results := make(chan error, 2)
		for range 2 {
			go func() { // ends with Publish
				_, err := publish(t, s)
				results <- err
			}()
		}
		synctest.Wait()
		require.Equal(t, 2, inLine(s))
		conn := accept(network)
		say(t, conn, &wire.Frame{Body: &wire.Frame_Failure{Failure: &wire.Failure{Code: wire.Code_CODE_UNAUTHENTICATED}}})
		var refused *session.PeerError
		require.ErrorAs(t, <-results, &refused)
		require.ErrorAs(t, <-results, &refused)
		require.Zero(t, inLine(s))
		require.NoError(t, conn.Close())
	})
}

// inLine is the number of calls that wait for room.
func inLine(s *Sender) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.client.Stats() {
		n += st.Waiting
	}
	return n
}

// A Sender goes on as long as it has messages, and never without a pause: neither a BackOff that says stop nor one that
// says zero makes it dial in a loop.
func TestSender_PausesWhateverTheBackoffSays(t *testing.T) {
	for name, b := range map[string]backoff.BackOff{"stop": &backoff.StopBackOff{}, "zero": &backoff.ZeroBackOff{}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var dials atomic.Int64
				refuse := func(context.Context, string, string) (net.Conn, error) {
					dials.Add(1)
					return nil, io.ErrUnexpectedEOF
				}
				s := start(t, Config{Dial: refuse, Backoff: func() backoff.BackOff { return b }})
				_, err := publish(t, s)
				require.NoError(t, err)
				time.Sleep(time.Minute) // in the time of the bubble
				n := dials.Load()
				require.Greater(t, n, int64(5), "it goes on")
				require.LessOrEqual(t, n, int64(time.Minute/leastWait)+1)
				if name == "stop" {
					require.LessOrEqual(t, n, int64(time.Minute/longestWait)+1)
				}
			})
		})
	}
}

// A wait that ends says what it waited for, at each step on the way to an ack.
func TestSender_TimeoutSaysWhatItWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		reachable := make(chan struct{})
		s := start(t, Config{MaxMessageSize: maxMessage, HandshakeTimeout: time.Hour,
			Dial: func(ctx context.Context, n, address string) (net.Conn, error) {
				<-reachable
				return network.Dial(ctx, n, address)
			},
		})
		timesOut := func(why string) {
			t.Helper()
			result := make(chan error, 1)
			go func() { // ends with the time-out
				_, _, err := s.Publish(context.Background(), "a", acktest.BatchOf(t, "message"), session.Received, time.Second)
				result <- err
			}()
			for range 12 { // as a Manager does
				time.Sleep(100 * time.Millisecond)
				s.Tick(time.Now())
			}
			err := <-result
			require.ErrorIs(t, err, ErrTimeout)
			require.ErrorContains(t, err, why)
			require.NotContains(t, err.Error(), "\n")
		}
		timesOut("connecting to 127.0.0.1:1")
		close(reachable)
		conn := accept(network)
		timesOut("has not answered the greeting")
		say(t, conn, welcome())
		timesOut("whether it takes the topic")
		say(t, conn, &wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{Handle: 1, Next: 1}}})
		timesOut("gives no credit")
		say(t, conn, &wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Handle: 1, Why: "group \"g\"\n"}}})
		timesOut(`gives no credit for the topic: "group \"g\"\n"`)
		require.NoError(t, conn.Close())
	})
}
