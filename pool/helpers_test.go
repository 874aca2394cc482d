package pool

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// startListener listens on a port of the system's choice and accepts.
func startListener(t testing.TB, cfg ListenerConfig) *Listener {
	t.Helper()
	if cfg.Address == "" {
		cfg.Address = "127.0.0.1:0"
	}
	l, err := ListenTCP(cfg)
	require.NoError(t, err)
	require.NoError(t, l.StartListeningAsync())
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dialWriterTo(t testing.TB, l *Listener, cfg WriterConfig) *Writer {
	t.Helper()
	cfg.Address = l.Addr().String()
	return dialTest(t, cfg)
}

func dialTest(t testing.TB, cfg WriterConfig) *Writer {
	t.Helper()
	w, err := DialTCP(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// collect is a callback that passes copies on.
func collect(into chan<- string) ListenCallback {
	return func(m []byte) error {
		into <- string(m)
		return nil
	}
}

// The peer below speaks BuffStreams with encoding/binary alone and shares no code with package framing: the length as a
// zigzag varint in a zeroed field.

func peerFrame(width int, payload []byte) []byte {
	field := make([]byte, width)
	binary.PutVarint(field, int64(len(payload)))
	return append(field, payload...)
}

func peerRead(r io.Reader, width int) ([]byte, error) {
	field := make([]byte, width)
	if _, err := io.ReadFull(r, field); err != nil {
		return nil, err
	}
	n, _ := binary.Varint(field)
	if n < 0 || n > 1<<24 {
		return nil, fmt.Errorf("peer: length %d", n)
	}
	payload := make([]byte, n)
	_, err := io.ReadFull(r, payload)
	return payload, err
}

// width4096 is the header width for the default limit.
const width4096 = 3

// peerClient writes each message with one call.
type peerClient struct {
	t    testing.TB
	conn net.Conn
}

func newPeerClient(t testing.TB, l *Listener) peerClient {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return peerClient{t, conn}
}

func (p peerClient) send(payload []byte) { p.sendRaw(peerFrame(width4096, payload)) }

func (p peerClient) sendRaw(b []byte) {
	p.t.Helper()
	_, err := p.conn.Write(b)
	require.NoError(p.t, err)
}

// ended waits until the other end closed the connection.
func (p peerClient) ended() {
	p.t.Helper()
	require.NoError(p.t, p.conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	n, err := p.conn.Read(make([]byte, 1))
	require.Zero(p.t, n)
	require.Error(p.t, err)
	require.NotErrorIs(p.t, err, os.ErrDeadlineExceeded, "the connection was not closed")
}

// readAll reads frames until the stream ends.
func readAll(conn io.Reader) (messages []string, err error) {
	r := bufio.NewReader(conn)
	for {
		m, err := peerRead(r, width4096)
		if errors.Is(err, io.EOF) {
			return messages, nil
		}
		if err != nil {
			return messages, err
		}
		messages = append(messages, string(m))
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
