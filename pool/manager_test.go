package pool

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func NewTestManager(t *testing.T, cfg ManagerConfig) *Manager {
	t.Helper()
	m, err := NewManager(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

func TestManagerRoundTrip(t *testing.T) {
	NoLeaks(t)
	m := NewTestManager(t, ManagerConfig{})
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

func TestWhatIsNotOpenedIsSaidSo(t *testing.T) {
	m := NewTestManager(t, ManagerConfig{})
	_, err := m.Write("127.0.0.1:1", nil)
	assert.ErrorIs(t, err, ErrNotOpened)
	assert.ErrorIs(t, m.Flush(context.Background(), "127.0.0.1:1"), ErrNotOpened)
	assert.ErrorIs(t, m.CloseWriter("127.0.0.1:1"), ErrNotOpened)
	assert.ErrorIs(t, m.CloseListener("127.0.0.1:1"), ErrNotOpened)
	assert.Nil(t, m.ListenAddress("127.0.0.1:1"))
}

func TestAFailedDialLeavesNothingBehind(t *testing.T) {
	NoLeaks(t)
	failure := errors.New("refused")
	fail := true
	m := NewTestManager(t, ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) {
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

func TestASlowDialDelaysNoOtherAddress(t *testing.T) {
	NoLeaks(t)
	dialling := make(chan struct{})
	m := NewTestManager(t, ManagerConfig{Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
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

func TestADialThatSucceedsAfterItsAddressWasClosedIsUndone(t *testing.T) {
	NoLeaks(t)
	dialling, proceed := make(chan struct{}), make(chan struct{})
	contexts := make(chan context.Context, 1)
	client, server := net.Pipe()
	m := NewTestManager(t, ManagerConfig{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
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
	_, err := server.Read(make([]byte, 1))
	assert.Equal(t, io.EOF, err)
	_, err = m.Write("a:1", nil)
	assert.ErrorIs(t, err, ErrNotOpened)
}

func TestManagerCloseEndsEverythingAndStaysClosed(t *testing.T) {
	NoLeaks(t)
	dialling := make(chan struct{})
	m := NewTestManager(t, ManagerConfig{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == "slow:1" {
			close(dialling)
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}})
	got := make(chan string, 100)
	require.NoError(t, m.StartListening(ListenerConfig{Address: "127.0.0.1:0", Callback: ignore}))
	other := StartListener(t, ListenerConfig{Callback: collect(got)})
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

func TestConcurrentUseOfOneAddressOpensItOnce(t *testing.T) {
	NoLeaks(t)
	l := StartListener(t, ListenerConfig{Callback: ignore})
	m := NewTestManager(t, ManagerConfig{})
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
	assert.ErrorIs(t, m.CloseWriter(address), ErrNotOpened, "every writer was closed by somebody")
	assert.NoError(t, m.Dial(WriterConfig{Address: address}))
}

func TestDialAllowIsValidated(t *testing.T) {
	_, err := NewManager(ManagerConfig{DialAllow: &DialAllow{Prefixes: []netip.Prefix{{}}}})
	require.ErrorContains(t, err, "ManagerConfig.DialAllow")
	_, err = NewManager(ManagerConfig{DialAllow: &DialAllow{UnixDirs: []string{"run"}}})
	require.ErrorContains(t, err, "ManagerConfig.DialAllow")
}
