package pool

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/leaktest"
)

// noLeaks fails the test if it leaves goroutines or descriptors behind. Call it
// first: it runs after every other cleanup.
func noLeaks(t *testing.T) {
	t.Helper()
	leaktest.Check(t)
}

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

func receive[T any](t testing.TB, from <-chan T) T {
	t.Helper()
	v, ok := <-from
	require.True(t, ok, "the channel was closed")
	return v
}

// The peer below speaks BuffStreams with encoding/binary alone and shares no
// code with package framing: the length as a zigzag varint in a zeroed field.

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
	n, err := p.conn.Read(make([]byte, 1))
	require.Zero(p.t, n)
	require.Error(p.t, err)
}

// peerServer hands out connections; it does not read them by itself.
type peerServer struct {
	ln net.Listener
}

func newPeerServer(t testing.TB, address string) peerServer {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return peerServer{ln}
}

func (p peerServer) address() string { return p.ln.Addr().String() }

func (p peerServer) accept(t testing.TB) net.Conn {
	t.Helper()
	conn, err := p.ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// readAll reads frames until the stream ends.
func readAll(conn io.Reader) (messages []string, err error) {
	r := bufio.NewReader(conn)
	for {
		m, err := peerRead(r, width4096)
		if err == io.EOF {
			return messages, nil
		}
		if err != nil {
			return messages, err
		}
		messages = append(messages, string(m))
	}
}

// pipes is a network in memory: each dial hands the other end to servers, or
// fails while it is down. It works inside a synctest bubble.
type pipes struct {
	servers chan net.Conn

	mu    sync.Mutex
	down  bool
	dials int
}

var errNetworkDown = errors.New("network is down")

func newPipes() *pipes { return &pipes{servers: make(chan net.Conn, 100)} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.mu.Lock()
	p.dials++
	down := p.down
	p.mu.Unlock()
	if down {
		return nil, errNetworkDown
	}
	client, server := net.Pipe()
	p.servers <- server
	return client, ctx.Err()
}

func (p *pipes) setDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (p *pipes) dialed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials
}

// pipeListener is a net.Listener whose connections the test pushes.
type pipeListener struct {
	accepts chan any // net.Conn or error
	closed  chan struct{}
	once    sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{accepts: make(chan any, 10), closed: make(chan struct{})}
}

func (p *pipeListener) listen(string, string) (net.Listener, error) { return p, nil }

func (p *pipeListener) connect() net.Conn {
	client, server := net.Pipe()
	p.accepts <- server
	return client
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case a := <-p.accepts:
		if err, ok := a.(error); ok {
			return nil, err
		}
		return a.(net.Conn), nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeListener) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// logLine is what a plainLog kept of one call.
type logLine struct {
	level, msg string
	err        error
	fields     watermill.LogFields
}

// plainLog passes every Error and Info on to a channel that must be large enough.
type plainLog struct {
	watermill.NopLogger
	lines chan logLine
}

func newPlainLog() plainLog { return plainLog{lines: make(chan logLine, 1000)} }

func (l plainLog) Error(msg string, err error, fields watermill.LogFields) {
	l.lines <- logLine{"error", msg, err, fields}
}

func (l plainLog) Info(msg string, fields watermill.LogFields) {
	l.lines <- logLine{"info", msg, nil, fields}
}

// next returns the next line of a level.
func (l plainLog) next(t testing.TB, level string) logLine {
	t.Helper()
	for {
		if line := receive(t, l.lines); line.level == level {
			return line
		}
	}
}

// testTLS makes a certificate for 127.0.0.1 and the configurations that use it.
func testTLS(t testing.TB) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{RootCAs: roots}
}
