package main

import (
	"encoding/hex"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSub_TellsOfAnInterruptThoughItsOutputIsBlocked: its publishers must hear at once that they have to look for another,
// and the command ends though the write never does.
func TestSub_TellsOfAnInterruptThoughItsOutputIsBlocked(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe() // nobody reads it
	require.NoError(t, err)
	defer func() { _ = r.Close() }()
	sub, at := startSub(t, w, anyPort)
	require.NoError(t, w.Close())
	pub := start(t, nil, "pub", at, "--confirm", "received", "--json")
	_, err = io.WriteString(pub.stdin, strings.Repeat(strings.Repeat("x", 1000)+"\n", 500)) // far more than a pipe holds
	require.NoError(t, err)
	for range 500 {
		require.NotEmpty(t, pub.stdout.line())
	}

	idle, err := net.Dial("tcp", strings.TrimPrefix(at, "tcp://"))
	require.NoError(t, err)
	defer func() { _ = idle.Close() }()
	require.NoError(t, idle.SetDeadline(time.Now().Add(limit)))
	hello, err := hex.DecodeString("000000160a0f080110c080042207766563746f72737d38d2a95e") // of testdata/vectors
	require.NoError(t, err)
	_, err = idle.Write(hello)
	require.NoError(t, err)
	const welcome, goaway = 0x12, 0x62 // the first bytes of their payloads
	require.EqualValues(t, welcome, firstByte(t, idle))

	begin := time.Now()
	sub.signal(os.Interrupt)
	require.EqualValues(t, goaway, firstByte(t, idle))
	require.Less(t, time.Since(begin), 4*time.Second, "not when Close gives up, after 5 s")
	_, code := sub.wait()
	require.NotZero(t, code, "not everything was written")
	require.Contains(t, sub.stderr.String(), "blocked")
	_ = pub.stdin.Close()
	pub.signal(os.Kill)
	_, _ = pub.wait()
}

// firstByte reads a frame and returns the first byte of its payload.
func firstByte(t *testing.T, r io.Reader) byte {
	t.Helper()
	header := make([]byte, 4)
	_, err := io.ReadFull(r, header)
	require.NoError(t, err)
	payload := make([]byte, int(header[2])<<8|int(header[3])) // all of these are small
	_, err = io.ReadFull(r, payload)
	require.NoError(t, err)
	return payload[0]
}
