package sender

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// heard is what a Sender has said to a listener.
type heard struct {
	mu     sync.Mutex
	frames []any
}

func (h *heard) count(wanted func(any) bool) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.frames {
		if wanted(f) {
			n++
		}
	}
	return n
}

// listener settles what it is sent, or only receives it, and goes on until the connection ends.
func listener(t *testing.T, conn net.Conn, settles, closes bool) (*heard, <-chan struct{}) {
	h, done := &heard{}, make(chan struct{})
	enc := acktest.FuzzEncoder(t)
	answer := func(frames ...*wire.Frame) {
		s := acktest.Script{T: t, Enc: enc}
		for _, f := range frames {
			s.Control(f)
		}
		_, _ = conn.Write(s.Out)
	}
	acks := func(a session.AckFrame) {
		out, _ := enc.AppendAck(nil, a)
		_, _ = conn.Write(out)
	}
	go func() { // ends with the connection
		defer close(done)
		if closes {
			defer func() { _ = conn.Close() }()
		}
		r := framing.NewReader(conn, enc.Codec)
		for {
			payload, err := r.Next()
			if err != nil {
				return
			}
			payload, err = enc.Verify(payload)
			if err != nil {
				return
			}
			frame, err := session.Decode(payload)
			if err != nil {
				return
			}
			h.mu.Lock()
			h.frames = append(h.frames, frame)
			h.mu.Unlock()
			switch f := frame.(type) {
			case *wire.Hello:
				answer(welcome())
			case *wire.Open:
				answer(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{Handle: f.Handle, Next: f.Base}}})
				acks(session.AckFrame{Handle: f.Handle, Messages: 100, Bytes: 10_000})
			case *session.PublishFrame:
				ack := session.AckFrame{Handle: f.Handle, Next: f.First + uint64(len(f.Messages))}
				if settles {
					ack.Settled = []uint64{f.First, ack.Next - 1}
				}
				acks(ack)
			}
		}
	}()
	return h, done
}

func released(f any) bool { _, ok := f.(*wire.Release); return ok }

// pipe is a connection over TCP, whose ends can be half closed.
func pipe(t *testing.T) (dial func(context.Context, string, string) (net.Conn, error), accept func() net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
		}, func() net.Conn {
			conn, err := ln.Accept()
			require.NoError(t, err)
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
}

// A clean end leaves nothing behind at the peer, which has read the Release when Close returns.
func TestSender_CloseReleasesWhatIsSettled(t *testing.T) {
	dial, accept := pipe(t)
	s := start(t, Config{Dial: dial})
	for _, topic := range []string{"a", "b"} {
		_, _, err := s.Publish(context.Background(), topic, acktest.BatchOf(t, "message"), 0, 0)
		require.NoError(t, err)
	}
	h, done := listener(t, accept(), true, true)
	require.NoError(t, s.Drain(context.Background(), "a"))
	require.NoError(t, s.Drain(context.Background(), "b"))
	require.Empty(t, s.Close())
	<-done
	require.Equal(t, 2, h.count(released))
}

// What the peer has and has not settled is its own from then on. It remembers the stream until all is handled.
func TestSender_CloseReleasesWhatThePeerHas(t *testing.T) {
	dial, accept := pipe(t)
	s := start(t, Config{Dial: dial})
	_, err := publish(t, s)
	require.NoError(t, err)
	h, done := listener(t, accept(), false, true)
	require.NoError(t, s.Flush(context.Background(), "a"))
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(context.Background(), "a") }() // ends with Close
	require.Eventually(t, func() bool {                           // it waits
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.conditions) > 0
	}, 30*time.Second, time.Millisecond)
	require.Empty(t, s.Close())
	require.ErrorIs(t, <-drained, ErrClosed, "it is not handled")
	<-done
	require.Equal(t, 1, h.count(released))
}

// A peer that does not answer the end holds Close up for finishTimeout.
func TestSender_CloseWaitsForThePeerABoundedTime(t *testing.T) {
	dial, accept := pipe(t)
	s := start(t, Config{Dial: dial})
	_, err := publish(t, s)
	require.NoError(t, err)
	h, done := listener(t, accept(), true, false)
	require.NoError(t, s.Drain(context.Background(), "a"))
	begin := time.Now()
	s.Close()
	require.Less(t, time.Since(begin), finishTimeout+20*time.Second)
	<-done
	require.Equal(t, 1, h.count(released))
}
