package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// This file knows the BuffStreams protocol from its definition alone, and nothing of this module's own codec: a header
// is the zigzag varint of the length in a field whose width follows from the limit.

func headerWidth(limit int) int { return (bits.Len(uint(limit))+7)/8 + 1 }

func frame(limit int, payload []byte) []byte {
	out := make([]byte, headerWidth(limit))
	u := uint(len(payload)) << 1
	for i := 0; ; i++ {
		if u < 0x80 {
			out[i] = byte(u)
			break
		}
		out[i] = byte(u) | 0x80
		u >>= 7
	}
	return append(out, payload...)
}

// readFrame returns io.EOF at a clean end.
func readFrame(r io.Reader, limit int) ([]byte, error) {
	header := make([]byte, headerWidth(limit))
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	var u uint
	for i, b := range header {
		u |= uint(b&0x7f) << (7 * i)
		if b < 0x80 {
			break
		}
	}
	payload := make([]byte, u>>1)
	_, err := io.ReadFull(r, payload)
	return payload, err
}

// noise is n bytes of every kind.
func noise(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(r.Uint32())
	}
	return out
}

const plainLimit = 4096

func TestSub_TakesFromAPlainClient(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort, "--wire", "buffstreams", "--json", "--count", fmt.Sprint(plainLimit+1))
	conn, err := net.Dial("tcp", at)
	require.NoError(t, err)
	var stream []byte
	for n := range plainLimit + 1 {
		stream = append(stream, frame(plainLimit, noise(n))...)
	}
	_, err = conn.Write(stream)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	stdout, code := sub.wait()
	require.Zero(t, code, sub.stderr.String())
	dec := json.NewDecoder(bytes.NewBufferString(stdout))
	for n := range plainLimit + 1 {
		var o object
		require.NoError(t, dec.Decode(&o))
		require.True(t, bytes.Equal(noise(n), o.PayloadBase64), "payload of %d bytes", n)
	}
	require.False(t, dec.More())
}

func TestSub_HostileHeaderEndsOnlyItsConnection(t *testing.T) {
	t.Parallel()
	sub, at := startSub(t, nil, anyPort, "--wire", "buffstreams", "--count", "2")
	good, err := net.Dial("tcp", at)
	require.NoError(t, err)
	_, err = good.Write(frame(plainLimit, []byte("before")))
	require.NoError(t, err)
	line := sub.stdout.line()
	require.Equal(t, "before\n", line)
	for _, hostile := range []string{"\x82\x40\x00", "\x01\x00\x00", "\x06\xff\xff", "\x80\x80\x80", "\xff\xff\xff"} {
		bad, err := net.Dial("tcp", at)
		require.NoError(t, err)
		_, err = io.WriteString(bad, hostile+"payload that must not be taken for anything")
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, bad) // it is closed by the listener, with what it has not read
		_ = err
		require.NoError(t, bad.Close())
	}
	_, err = good.Write(frame(plainLimit, []byte("after")))
	require.NoError(t, err)
	rest, code := sub.wait()
	require.Zero(t, code, sub.stderr.String())
	require.Equal(t, "after\n", rest)
	require.NoError(t, good.Close())
}

// plainServer takes one connection and hands on all that it brings.
func plainServer(t *testing.T) (address string, payloads func() [][]byte) {
	t.Helper()
	ln, err := net.Listen("tcp", anyPort)
	require.NoError(t, err)
	type result struct {
		payloads [][]byte
		err      error
	}
	done := make(chan result, 1)
	go func() { // ends with the connection, or the listener
		conn, err := ln.Accept()
		if err != nil {
			done <- result{nil, err}
			return
		}
		defer func() { _ = conn.Close() }()
		var r result
		for r.err == nil {
			var payload []byte
			if payload, r.err = readFrame(conn, plainLimit); r.err == nil {
				r.payloads = append(r.payloads, payload)
			}
		}
		done <- r
	}()
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String(), func() [][]byte {
		r := <-done
		require.ErrorIs(t, r.err, io.EOF, "a clean end")
		return r.payloads
	}
}

// Lines cannot have newlines in them; everything else they can.
func TestPub_ToAPlainServer(t *testing.T) {
	t.Parallel()
	var want [][]byte
	var input []byte
	for n := range plainLimit + 1 {
		line := bytes.ReplaceAll(noise(n), []byte("\n"), []byte("\r"))
		want = append(want, line)
		input = append(append(input, line...), '\n')
	}
	address, payloads := plainServer(t)
	_, stderr, code := runCommand(t, string(input), "pub", address, "--wire", "buffstreams")
	require.Zero(t, code, stderr)
	got := payloads()
	require.Len(t, got, len(want))
	for n := range want {
		require.True(t, bytes.Equal(want[n], got[n]), "payload of %d bytes", n)
	}
}

func TestPub_FileToAPlainServer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "payload")
	for _, n := range []int{0, 1, 63, 64, 127, 128, 4095, 4096} {
		require.NoError(t, os.WriteFile(path, noise(n), 0o600))
		address, payloads := plainServer(t)
		_, stderr, code := runCommand(t, "", "pub", address, "--wire", "buffstreams", "--file", path)
		require.Zero(t, code, stderr)
		got := payloads()
		require.Len(t, got, 1)
		require.True(t, bytes.Equal(noise(n), got[0]), "payload of %d bytes", n)
	}
}

// A peer that goes away for good ends the command, however much there is still to send.
func TestPub_ToAPlainServerThatDies(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", ownPort()) // which is free again
	require.NoError(t, err)
	pub := start(t, nil, "pub", ln.Addr().String(), "--wire", "buffstreams")
	conn, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	go func() { // ends with pub
		for err := error(nil); err == nil; {
			_, err = io.WriteString(pub.stdin, sequence(0, 1000))
		}
	}()
	_, err = readFrame(conn, plainLimit)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	_, code := pub.wait()
	require.Equal(t, 1, code)
	requireOneLine(t, pub.stderr.String(), "messages did not reach", "connection refused")
}
