package pool

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func newTestManager(t *testing.T, cfg ManagerConfig) *Manager {
	t.Helper()
	m, err := NewManager(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func TestManager_RoundTrip(t *testing.T) {
	testkit.CheckLeaks(t)
	m := newTestManager(t, ManagerConfig{})
	got := make(chan string, 1)
	const listen = "127.0.0.1:0"
	require.NoError(t, m.StartListening(ListenerConfig{Address: listen, Callback: collect(got)}))
	address := m.ListenAddress(listen).String()
	require.NoError(t, m.Dial(WriterConfig{Address: address}))
	n, err := m.Write(address, []byte("hello"))
	require.NoError(t, err)
	assert.Equal(t, 5, n)
	assert.Equal(t, "hello", testkit.Receive(t, got))
	require.NoError(t, m.Flush(context.Background(), address))

	assert.ErrorIs(t, m.Dial(WriterConfig{Address: address}), ErrAlreadyOpened)
	assert.ErrorIs(t, m.StartListening(ListenerConfig{Address: listen, Callback: ignore}), ErrAlreadyOpened)
	require.NoError(t, m.CloseWriter(address))
	require.NoError(t, m.Dial(WriterConfig{Address: address}), "it can be dialled again")
	require.NoError(t, m.CloseListener(listen))
	assert.Nil(t, m.ListenAddress(listen))
	require.NoError(t, m.StartListening(ListenerConfig{Address: address, Callback: ignore}), "its port is free again")
}

func TestManager_AddressThatIsNotOpened(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	_, err := m.Write("127.0.0.1:1", nil)
	assert.ErrorIs(t, err, ErrNotOpened)
	assert.ErrorIs(t, m.Flush(context.Background(), "127.0.0.1:1"), ErrNotOpened)
	assert.ErrorIs(t, m.CloseWriter("127.0.0.1:1"), ErrNotOpened)
	assert.ErrorIs(t, m.CloseListener("127.0.0.1:1"), ErrNotOpened)
	assert.Nil(t, m.ListenAddress("127.0.0.1:1"))
}

func TestManager_KeysOfOneAddress(t *testing.T) {
	testkit.CheckLeaks(t)
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	m := newTestManager(t, ManagerConfig{})
	conns := map[string]net.Conn{}
	for _, key := range []string{"one", "two"} {
		require.NoError(t, m.Dial(WriterConfig{Address: server.Address(), Key: key}))
		conns[key] = server.Accept(t)
	}
	assert.ErrorIs(t, m.Dial(WriterConfig{Address: server.Address(), Key: "two"}), ErrAlreadyOpened)
	_, err := m.Write(server.Address(), []byte("m"))
	assert.ErrorIs(t, err, ErrNotOpened)
	for key, conn := range conns {
		_, err := m.Write(key, []byte(key))
		require.NoError(t, err)
		require.NoError(t, m.CloseWriter(key))
		got, err := readAll(conn)
		require.NoError(t, err)
		assert.Equal(t, []string{key}, got)
	}
}

func TestManager_DialAllowBindsEveryDial(t *testing.T) {
	server := testkit.NewPeerServer(t, "127.0.0.1:0")
	elsewhere := func(ctx context.Context, network, _ string) (net.Conn, error) { // not where it was asked to
		return (&net.Dialer{}).DialContext(ctx, network, server.Address())
	}
	allow := &DialAllow{Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}
	for _, c := range []struct {
		manager ManagerConfig
		writer  WriterConfig
	}{
		{ManagerConfig{}, WriterConfig{Address: server.Address()}},
		{ManagerConfig{Dial: elsewhere}, WriterConfig{Address: "127.0.0.2:1"}},
		{ManagerConfig{}, WriterConfig{Address: "127.0.0.2:1", Dial: elsewhere}},
	} {
		c.manager.DialAllow = allow
		var denied *DialDeniedError
		require.ErrorAs(t, newTestManager(t, c.manager).Dial(c.writer), &denied)
		assert.Equal(t, server.Address(), denied.Address)
	}
}

func TestManager_FailedDialLeavesNothingBehind(t *testing.T) {
	testkit.CheckLeaks(t)
	failure := errors.New("refused")
	fail := true
	m := newTestManager(t, ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) {
		if fail {
			return nil, failure
		}
		client, _ := net.Pipe()
		return client, nil
	}})
	assert.ErrorIs(t, m.Dial(WriterConfig{Address: "a:1"}), failure)
	_, err := m.Write("a:1", nil)
	assert.ErrorIs(t, err, ErrNotOpened)
	fail = false
	assert.NoError(t, m.Dial(WriterConfig{Address: "a:1"}))
}

func TestManager_SlowDialDelaysNoOtherAddress(t *testing.T) {
	testkit.CheckLeaks(t)
	dialling := make(chan struct{})
	m := newTestManager(t, ManagerConfig{Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
		if address == "slow:1" {
			close(dialling)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		client, server := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, server) }() // ends with the writer
		return client, nil
	}})
	slow := make(chan error, 1)
	go func() { slow <- m.Dial(WriterConfig{Address: "slow:1"}) }() // ends with CloseWriter
	<-dialling
	require.NoError(t, m.Dial(WriterConfig{Address: "fast:1"}))
	_, err := m.Write("fast:1", []byte("m"))
	require.NoError(t, err)
	_, err = m.Write("slow:1", []byte("m"))
	assert.ErrorIs(t, err, ErrNotOpened)
	assert.ErrorIs(t, m.Dial(WriterConfig{Address: "slow:1"}), ErrAlreadyOpened)
	require.NoError(t, m.CloseWriter("slow:1"))
	assert.ErrorIs(t, <-slow, ErrClosed)
	assert.ErrorIs(t, m.CloseWriter("slow:1"), ErrNotOpened)
}

func TestManager_DialThatSucceedsAfterCloseWriterIsUndone(t *testing.T) {
	testkit.CheckLeaks(t)
	dialling, proceed := make(chan struct{}), make(chan struct{})
	contexts := make(chan context.Context, 1)
	client, server := net.Pipe()
	m := newTestManager(t, ManagerConfig{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		contexts <- ctx
		close(dialling)
		<-proceed // deaf to its context
		return client, nil
	}})
	dialled, closed := make(chan error, 1), make(chan error, 1)
	go func() { dialled <- m.Dial(WriterConfig{Address: "a:1"}) }() // ends with proceed
	<-dialling
	go func() { closed <- m.CloseWriter("a:1") }() // ends with Dial
	<-(<-contexts).Done()
	close(proceed)
	assert.ErrorIs(t, <-dialled, ErrClosed)
	assert.NoError(t, <-closed)
	_ = server.SetReadDeadline(time.Now().Add(10 * time.Second)) // it fails on a pipe whose other end is closed
	_, err := server.Read(make([]byte, 1))
	assert.Equal(t, io.EOF, err)
	_, err = m.Write("a:1", nil)
	assert.ErrorIs(t, err, ErrNotOpened)
}

func TestManager_CloseEndsEverythingAndStaysClosed(t *testing.T) {
	testkit.CheckLeaks(t)
	dialling := make(chan struct{})
	m := newTestManager(t, ManagerConfig{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "slow:1" {
			close(dialling)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}})
	got := make(chan string, 100)
	require.NoError(t, m.StartListening(ListenerConfig{Address: "127.0.0.1:0", Callback: ignore}))
	other := startListener(t, ListenerConfig{Callback: collect(got)})
	address := other.Addr().String()
	require.NoError(t, m.Dial(WriterConfig{Address: address}))
	for range 100 {
		_, err := m.Write(address, []byte("queued"))
		require.NoError(t, err)
	}
	slow := make(chan error, 1)
	go func() { slow <- m.Dial(WriterConfig{Address: "slow:1"}) }() // ends with Close
	<-dialling
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { assert.NoError(t, m.Close()) }) // ends with Close
	}
	wg.Wait()
	assert.ErrorIs(t, <-slow, ErrClosed)
	for range 100 {
		assert.Equal(t, "queued", testkit.Receive(t, got), "Close sends what is queued")
	}
	assert.ErrorIs(t, m.Dial(WriterConfig{Address: address}), ErrClosed)
	assert.ErrorIs(t, m.StartListening(ListenerConfig{Address: "127.0.0.1:0", Callback: ignore}), ErrClosed)
	_, err := m.Write(address, nil)
	assert.ErrorIs(t, err, ErrClosed)
	assert.ErrorIs(t, m.CloseWriter(address), ErrClosed)
}

func TestManager_CloseWaitsForCallbacksThatWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, socket, proceed := testkit.NewNetwork(), testkit.NewPipeListener(), make(chan struct{})
		m := newTestManager(t, ManagerConfig{Dial: network.Dial, Listen: socket.Listen})
		require.NoError(t, m.Dial(WriterConfig{Address: "peer:1"}))
		require.NoError(t, m.StartListening(ListenerConfig{Address: "127.0.0.1:1", Callback: func(message []byte) error {
			<-proceed
			_, err := m.Write("peer:1", message)
			assert.NoError(t, err)
			return err
		}}))
		_, err := socket.Connect().Write(peerFrame(width4096, []byte("passed on")))
		require.NoError(t, err)
		closed := make(chan error, 1)
		go func() { closed <- m.Close() }() // ends with the callback
		synctest.Wait()
		assert.Empty(t, closed)
		close(proceed)
		got, err := readAll(<-network.Servers)
		require.NoError(t, err)
		assert.Equal(t, []string{"passed on"}, got)
		assert.NoError(t, <-closed)
	})
}

func TestManager_ConcurrentUseOfOneAddressOpensItOnce(t *testing.T) {
	testkit.CheckLeaks(t)
	l := startListener(t, ListenerConfig{Callback: ignore})
	m := newTestManager(t, ManagerConfig{})
	address := l.Addr().String()
	var wg sync.WaitGroup
	opened, closed := make(chan struct{}, 1000), make(chan struct{}, 1000)
	for range 8 {
		wg.Go(func() { // ends after its rounds
			for range 50 {
				switch err := m.Dial(WriterConfig{Address: address}); {
				case err == nil:
					opened <- struct{}{}
				default:
					assert.True(t, errors.Is(err, ErrAlreadyOpened) || errors.Is(err, ErrClosed), "%v", err)
				}
				_, _ = m.Write(address, []byte("m"))
				if err := m.CloseWriter(address); err == nil {
					closed <- struct{}{}
				}
			}
		})
	}
	wg.Wait()
	assert.GreaterOrEqual(t, len(closed), len(opened))
	assert.ErrorIs(t, m.CloseWriter(address), ErrNotOpened, "every writer was closed")
	assert.NoError(t, m.Dial(WriterConfig{Address: address}))
}

func TestManager_DialAllowIsValidated(t *testing.T) {
	_, err := NewManager(ManagerConfig{DialAllow: &DialAllow{Prefixes: []netip.Prefix{{}}}})
	require.ErrorContains(t, err, "ManagerConfig.DialAllow")
	_, err = NewManager(ManagerConfig{DialAllow: &DialAllow{UnixDirs: []string{"run"}}})
	require.ErrorContains(t, err, "ManagerConfig.DialAllow")
}
