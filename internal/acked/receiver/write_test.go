package receiver

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestWhatASocketDoesNotTakeAtOnceFollows: bytes that a full socket did not take are written behind it, in order.
func TestWhatASocketDoesNotTakeAtOnceFollows(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	near, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	defer near.Close()
	far, err := ln.Accept()
	require.NoError(t, err)
	defer far.Close()
	e := newReceiver(complete(Config{}))
	c := newConn(e, near)
	require.NotNil(t, c.tryWriter, "a TCP socket can be tried")

	var want []byte
	say := func(b byte, n int) {
		chunk := make([]byte, n)
		for i := range chunk {
			chunk[i] = b
		}
		want = append(want, chunk...)
		c.mu.Lock()
		c.control = append(c.control, chunk...)
		c.mu.Unlock()
	}
	say(1, 16<<20) // more than any socket takes
	c.flusher.Direct()
	say(2, 1000)
	c.flusher.Direct()
	got := make(chan []byte)
	go func() { // ends with the connection
		all, _ := io.ReadAll(far)
		got <- all
	}()
	c.flusher.Kick()
	c.flusher.Close()
	require.NoError(t, near.Close())
	require.Equal(t, want, <-got)
}
