package receiver

import (
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// halfConn is a connection whose two directions can be closed by themselves.
type halfConn struct {
	*testkit.ScriptedConn
	left        *atomic.Int64 // of what the peer has sent
	closedWrite atomic.Bool
	lingered    atomic.Bool // everything was read between CloseWrite and Close
}

func (c *halfConn) Read(p []byte) (int, error) {
	n, err := c.ScriptedConn.Read(p)
	c.left.Add(int64(-n))
	return n, err
}

func (c *halfConn) CloseWrite() error { c.closedWrite.Store(true); return nil }

func (c *halfConn) Close() error {
	if c.closedWrite.Load() && c.left.Load() == 0 {
		c.lingered.Store(true)
	}
	return c.ScriptedConn.Close()
}

// A peer breaks the protocol and has sent more already: to close the socket with that unread would reset the
// connection, and the peer would not learn why.
func TestConn_LingersSoThatThePeerCanReadWhy(t *testing.T) {
	r := start(t, Config{}, testkit.NewPipeListener())
	sent := append(sealed(t, &wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{}}}), make([]byte, 1<<20)...)
	left := new(atomic.Int64)
	left.Store(int64(len(sent)))
	nc := &halfConn{ScriptedConn: testkit.NewScriptedConn(sent), left: left}
	r.admit(nc)
	nc.AwaitClose(t)
	require.True(t, nc.lingered.Load(), "%d bytes were not read", left.Load())
	require.Contains(t, string(nc.Written()), "the first frame must be a hello")
}

// brokenWriter fails each write half way, and counts the writes.
type brokenWriter struct {
	*testkit.ScriptedConn
	writes atomic.Int32
}

func (c *brokenWriter) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return len(p) / 2, os.ErrDeadlineExceeded
}

// A write that ends in the middle of a frame must end the connection, though the peer still reads.
func TestConn_AHalfWrittenFrameEndsTheConnection(t *testing.T) {
	r := listen(t, Config{})
	nc := &brokenWriter{ScriptedConn: testkit.NewScriptedConn(nil)}
	c := newConn(r, nc)
	c.send(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: 1}}})
	c.flusher.Close()
	require.EqualValues(t, 1, nc.writes.Load())
	_, err := nc.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
}

// A connection that lost its stream to a newer one still has a frame of it: the newer one's credit does not admit that.
func TestStream_TakesNothingOfAConnectionThatLostIt(t *testing.T) {
	r := listen(t, Config{})
	r.Topic("a").Join("g", func() {})
	old := opens(t, r, openOf(1))
	s := old.handles[1]
	f := openOf(1)
	f.Epoch = 2
	now := opens(t, r, f)
	require.Same(t, s, now.handles[1])
	frame := &session.PublishFrame{Handle: 1, First: 1, Messages: [][]byte{{1}}, Bytes: 3}
	var broken *session.ProtocolError
	require.ErrorAs(t, s.publish(old, frame), &broken)
	require.Contains(t, broken.Rule, "newer connection")
	require.NoError(t, s.publish(now, frame))
}

// The publisher of a message dies while the listener drains, or lives and answers: only the answer to the ping of the
// goaway, and no other Pong, says that the publisher keeps the message.
func TestReceiver_HasOnlyCopiesUntilTheGoawayIsAnswered(t *testing.T) {
	ln := testkit.NewPipeListener()
	r := start(t, Config{}, ln)
	join(r, "a")
	s := stranger{t, ln.Connect()}
	require.NoError(t, s.conn.SetDeadline(time.Now().Add(10*time.Second)))
	s.welcomed()
	write := func(f *wire.Frame) {
		_, err := s.conn.Write(sealed(t, f))
		require.NoError(t, err)
	}
	until := func(wanted func(*wire.Frame) bool) {
		for f := s.next(); !wanted(f); f = s.next() {
			require.NotNil(t, f)
		}
	}
	write(&wire.Frame{Body: &wire.Frame_Open{Open: openOf(1)}})
	until(func(f *wire.Frame) bool { return f.GetAck().GetCreditMessages() > 0 })
	write(&wire.Frame{Body: &wire.Frame_Publish{Publish: &wire.Publish{Handle: 1, First: 1, Messages: [][]byte{{1}}}}})
	until(func(f *wire.Frame) bool { return f.GetAck().GetNext() == 2 })
	pong := func(id uint64) {
		write(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: id}}})
		write(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: 99}}})
		until(func(f *wire.Frame) bool { return f.GetPong().GetId() == 99 }) // so the Pong was read
	}
	pong(goawayPing)
	require.Zero(t, r.OnlyCopies(), "a connected publisher keeps its messages")
	r.Drain()
	until(func(f *wire.Frame) bool { return f.GetPing().GetId() == goawayPing })
	pong(goawayPing + 1)
	require.Equal(t, 1, r.OnlyCopies())
	pong(goawayPing)
	require.Zero(t, r.OnlyCopies())
}
