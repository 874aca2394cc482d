package netio

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// tcpPair is two ends of a connection.
func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, ln.Close()) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	peer, err := ln.Accept()
	require.NoError(t, err)
	near, far = conn.(*net.TCPConn), peer.(*net.TCPConn)
	require.NoError(t, near.SetWriteBuffer(64<<10))
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

// readSlowly reads n bytes in pieces, with a pause after each.
func readSlowly(conn net.Conn, n, piece int, pause time.Duration) <-chan []byte {
	done := make(chan []byte, 1)
	go func() { // ends with the connection at the latest
		var all []byte
		for len(all) < n {
			buf := make([]byte, piece)
			got, err := conn.Read(buf)
			all = append(all, buf[:got]...)
			if err != nil {
				break
			}
			time.Sleep(pause)
		}
		done <- all
	}()
	return done
}

// The write takes several times the time-out, in which no one piece of it is late.
func TestWrite_GoesOnWhileThePeerReads(t *testing.T) {
	const timeout, size = 2 * time.Second, 9 << 20 // a busy machine may stand still for a second
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	for name, write := range map[string]func(net.Conn) error{
		"one buffer":        func(conn net.Conn) error { return Write(conn, data, timeout) },
		"several":           func(conn net.Conn) error { return WriteBuffers(conn, &net.Buffers{data[:100], data[100:]}, timeout) },
		"not a bare socket": func(conn net.Conn) error { return Write(struct{ net.Conn }{conn}, data, timeout) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := tcpPair(t)
			got := readSlowly(far, size, 64<<10, 35*time.Millisecond)
			begin := time.Now()
			require.NoError(t, write(near))
			require.Greater(t, time.Since(begin), 2*timeout, "the test is about more than the time-out")
			require.True(t, bytes.Equal(data, <-got))
		})
	}
}

func TestWrite_GoesOnUnderTLS(t *testing.T) {
	t.Parallel()
	const timeout, size = 2 * time.Second, 9 << 20 // a busy machine may stand still for a second
	server, client := testkit.SelfSignedTLS(t)
	client.ServerName = "127.0.0.1"
	near, far := tcpPair(t)
	secured := tls.Client(Patient(near, timeout), client)
	data := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	got := readSlowly(tls.Server(far, server), size, 16<<10, 8*time.Millisecond)
	require.NoError(t, secured.SetDeadline(time.Now().Add(30*time.Second)))
	require.NoError(t, secured.Handshake())
	begin := time.Now()
	require.NoError(t, Write(secured, data, timeout))
	require.Greater(t, time.Since(begin), 2*timeout)
	require.True(t, bytes.Equal(data, <-got))
}

// A peer that takes next to nothing, or nothing, is given up after the time-out.
func TestWrite_EndsWhereNothingMoves(t *testing.T) {
	const timeout = 200 * time.Millisecond
	server, client := testkit.SelfSignedTLS(t)
	client.ServerName = "127.0.0.1"
	data := make([]byte, 16<<20)
	for name, write := range map[string]func(near, far net.Conn) error{
		"one buffer":        func(near, _ net.Conn) error { return Write(near, data, timeout) },
		"several":           func(near, _ net.Conn) error { return WriteBuffers(near, &net.Buffers{data, data}, timeout) },
		"not a bare socket": func(near, _ net.Conn) error { return Write(struct{ net.Conn }{near}, data, timeout) },
		"TLS": func(near, far net.Conn) error {
			peer := tls.Server(far, server)
			handshake := make(chan error, 1)
			go func() { handshake <- peer.Handshake() }() // ends as the other end does
			secured := tls.Client(Patient(near, timeout), client)
			require.NoError(t, secured.Handshake())
			require.NoError(t, <-handshake)
			return Write(secured, data, timeout)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := tcpPair(t)
			begin := time.Now()
			require.ErrorIs(t, write(near, far), os.ErrDeadlineExceeded)
			require.Less(t, time.Since(begin), 10*time.Second)
		})
	}
}

// A deadline that TLS sets itself, such as for its closing alert, is kept.
func TestPatient_KeepsADeadlineThatWasSet(t *testing.T) {
	near, _ := tcpPair(t)
	conn := Patient(near, time.Hour)
	require.NoError(t, conn.SetWriteDeadline(time.Now().Add(100*time.Millisecond)))
	_, err := conn.Write(make([]byte, 16<<20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	_, err = io.WriteString(conn, "x")
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}
