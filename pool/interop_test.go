package pool

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func patterned(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + n)
	}
	return b
}

func TestListener_TakesEveryLengthFromAPlainPeer(t *testing.T) {
	testkit.CheckLeaks(t)
	got := make(chan string, 10)
	l := startListener(t, ListenerConfig{Callback: collect(got)})
	peer := newPeerClient(t, l)
	go func() { // ends after the last message
		for n := range 4097 {
			_, _ = peer.conn.Write(peerFrame(width4096, patterned(n)))
		}
	}()
	for n := range 4097 {
		require.Equal(t, string(patterned(n)), testkit.Receive(t, got), "length %d", n)
	}
}

func TestWriter_SendsEveryLengthToAPlainPeer(t *testing.T) {
	testkit.CheckLeaks(t)
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address()})
	conn := server.Accept(t)
	go func() { // ends after the last message
		for n := range 4097 {
			_, _ = w.Write(patterned(n))
		}
	}()
	r := bufio.NewReader(conn)
	for n := range 4097 {
		m, err := peerRead(r, width4096)
		require.NoError(t, err)
		require.Equal(t, patterned(n), m, "length %d", n)
	}
}

func TestConfig_OtherLimitsHaveTheHeaderWidthOfBuffStreams(t *testing.T) {
	for limit, width := range map[int]int{255: 2, 256: 3, 65535: 3, 65536: 4, 1 << 20: 4} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			testkit.CheckLeaks(t)
			got := make(chan string, 1)
			l := startListener(t, ListenerConfig{MaxMessageSize: limit, Callback: collect(got)})
			newPeerClient(t, l).sendRaw(peerFrame(width, patterned(limit)))
			assert.Equal(t, string(patterned(limit)), testkit.Receive(t, got))

			server := testkit.NewPeerServer(t, "127.0.0.1:0")
			w := dialTest(t, WriterConfig{Address: server.Address(), MaxMessageSize: limit})
			conn := server.Accept(t)
			_, err := w.Write(patterned(limit))
			require.NoError(t, err)
			m, err := peerRead(conn, width)
			require.NoError(t, err)
			assert.Equal(t, patterned(limit), m)
		})
	}
}

func TestListener_HostileHeaderEndsOnlyItsOwnConnection(t *testing.T) {
	length := func(n uint64) error { return &framing.LengthError{Length: n, Limit: 4096} }
	cases := map[string]struct {
		header []byte
		want   error
	}{
		"4097 bytes":      {[]byte{0x82, 0x40, 0x00}, length(4097)},
		"negative":        {[]byte{0x01, 0x00, 0x00}, framing.ErrNegativeLength},
		"dirty padding":   {[]byte{0x06, 0xff, 0xff}, framing.ErrNonCanonical},
		"endless varint":  {[]byte{0x80, 0x80, 0x80}, framing.ErrHeaderOverflow},
		"all ones":        {[]byte{0xff, 0xff, 0xff}, framing.ErrHeaderOverflow},
		"largest 3 bytes": {[]byte{0xfe, 0xff, 0x7f}, length(1<<20 - 1)},
		"cut header":      {[]byte{0x06, 0x00}, framing.ErrTruncatedHeader},
		"cut body":        {[]byte{0x06, 0x00, 0x00, 'a'}, framing.ErrTruncatedBody},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			testkit.CheckLeaks(t)
			got, log := make(chan string, 10), testkit.NewLog()
			l := startListener(t, ListenerConfig{Callback: collect(got), Logger: log})
			good, bad := newPeerClient(t, l), newPeerClient(t, l)
			good.send([]byte("before"))
			require.Equal(t, "before", testkit.Receive(t, got))
			bad.send([]byte("bad's own"))
			require.Equal(t, "bad's own", testkit.Receive(t, got))

			bad.sendRaw(c.header)
			require.NoError(t, closeWrite(bad.conn))
			bad.ended()
			line := log.Next(t, "error")
			var want *framing.LengthError
			if errors.As(c.want, &want) {
				var is *framing.LengthError
				require.ErrorAs(t, line.Err, &is)
				assert.Equal(t, want, is)
			} else {
				assert.ErrorIs(t, line.Err, c.want)
			}
			assert.Equal(t, fmt.Sprintf("%q", bad.conn.LocalAddr().String()), line.Fields["peer"])

			good.send([]byte("after"))
			assert.Equal(t, "after", testkit.Receive(t, got))
		})
	}
}

func TestListener_UnmodifiedClientWithALargerLimitEndsOnlyItself(t *testing.T) {
	testkit.CheckLeaks(t)
	got := make(chan string, 10)
	l := startListener(t, ListenerConfig{Callback: collect(got)})
	good, bad := newPeerClient(t, l), newPeerClient(t, l)
	bad.send(make([]byte, 4096))
	require.Len(t, testkit.Receive(t, got), 4096)
	bad.send(make([]byte, 4097)) // the width is the same, so only the length gives it away
	bad.ended()
	good.send([]byte("still here"))
	assert.Equal(t, "still here", testkit.Receive(t, got))
}

func TestWriter_ConcurrentWritesNeverInterleaveAndKeepTheirOrder(t *testing.T) {
	testkit.CheckLeaks(t)
	const writers, each = 16, 2000
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	w := dialTest(t, WriterConfig{Address: server.Address(), BufferSize: 64 << 10})
	conn := server.Accept(t)
	var wg sync.WaitGroup
	for id := range writers {
		wg.Go(func() { // ends after its messages
			for seq := range each {
				m := binary.BigEndian.AppendUint32([]byte{byte(id)}, uint32(seq))
				m = append(m, bytes.Repeat([]byte{byte(id) ^ byte(seq)}, seq%97)...)
				if n, err := w.Write(m); err != nil || n != len(m) {
					t.Errorf("Write: %d, %v", n, err)
				}
			}
		})
	}
	r := bufio.NewReader(conn)
	var next [writers]uint32
	for range writers * each {
		m, err := peerRead(r, width4096)
		require.NoError(t, err)
		id, seq := m[0], binary.BigEndian.Uint32(m[1:])
		require.Equal(t, next[id], seq, "order of writer %d", id)
		require.Equal(t, bytes.Repeat([]byte{id ^ byte(seq)}, int(seq)%97), m[5:])
		next[id]++
	}
	wg.Wait()
	assert.NoError(t, w.Flush(context.Background()))
}

func closeWrite(conn net.Conn) error { return conn.(interface{ CloseWrite() error }).CloseWrite() }
