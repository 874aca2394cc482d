package pool

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func ignore([]byte) error { return nil }

func TestStartListeningBlocksUntilClose(t *testing.T) {
	NoLeaks(t)
	served := make(chan struct{}, 1)
	l, err := ListenTCP(ListenerConfig{Address: "127.0.0.1:0", Callback: func(payload []byte) error {
		served <- struct{}{}
		return ignore(payload)
	}})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- l.StartListening() }() // ends with Close
	conn, err := net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write(peerFrame(width4096, nil))
	require.NoError(t, err)
	<-served // it has started: the kernel takes connections before
	require.NoError(t, l.Close())
	assert.NoError(t, <-ended)
	assert.ErrorIs(t, l.StartListening(), ErrClosed)
	assert.ErrorIs(t, l.StartListeningAsync(), ErrClosed)
	assert.NoError(t, l.Close())
}

func TestAListenerStartsOnce(t *testing.T) {
	NoLeaks(t)
	l := StartListener(t, ListenerConfig{Callback: ignore})
	assert.ErrorIs(t, l.StartListeningAsync(), ErrAlreadyOpened)
	assert.ErrorIs(t, l.StartListening(), ErrAlreadyOpened)
}

func TestCloseWithoutStartFreesThePort(t *testing.T) {
	NoLeaks(t)
	l, err := ListenTCP(ListenerConfig{Address: "127.0.0.1:0", Callback: ignore})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	StartListener(t, ListenerConfig{Address: l.Addr().String(), Callback: ignore})
}

func TestCloseHandsOverWhatWasReceivedAndFreesThePort(t *testing.T) {
	NoLeaks(t)
	const count = 20000 // more than the reader buffers: the kernel holds the rest
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var got []string
	l := StartListener(t, ListenerConfig{Callback: func(m []byte) error {
		once.Do(func() { close(entered); <-release })
		got = append(got, string(m))
		return nil
	}})
	idle, busy := newPeerClient(t, l), newPeerClient(t, l)
	var stream []byte
	for i := range count {
		stream = append(stream, peerFrame(width4096, fmt.Appendf(nil, "%08d", i))...)
	}
	stream = append(stream, 0x10, 0x00) // and a frame that never gets whole
	busy.sendRaw(stream)
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- l.Close() }() // ends with Close
	idle.ended()
	StartListener(t, ListenerConfig{Address: l.Addr().String(), Callback: ignore}) // while a callback runs
	assert.Empty(t, closed)
	close(release)
	require.NoError(t, <-closed)
	require.Len(t, got, count)
	for i, m := range got {
		require.Equal(t, fmt.Sprintf("%08d", i), m)
	}
}

func TestCloseOfManyCallersEndsOnce(t *testing.T) {
	NoLeaks(t)
	l := StartListener(t, ListenerConfig{Callback: ignore})
	for range 8 {
		newPeerClient(t, l).send([]byte("m"))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { assert.NoError(t, l.Close()) }) // ends with Close
	}
	wg.Wait()
}

func TestAPeerThatNeverStopsDoesNotHoldUpClose(t *testing.T) {
	NoLeaks(t)
	got := make(chan struct{}, 1)
	l := StartListener(t, ListenerConfig{CloseTimeout: time.Minute, Callback: func([]byte) error {
		select {
		case got <- struct{}{}:
		default:
		}
		return nil
	}})
	peer := newPeerClient(t, l)
	frame := peerFrame(width4096, make([]byte, 4096))
	stopped := make(chan struct{})
	go func() { // ends when the listener closes the connection
		defer close(stopped)
		for {
			if _, err := peer.conn.Write(frame); err != nil {
				return
			}
		}
	}()
	<-got
	require.NoError(t, l.Close())
	<-stopped
}

func TestCloseIsBoundedWhenACallbackHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket := testkit.NewPipeListener()
		hang := make(chan struct{})
		l := StartListener(t, ListenerConfig{Listen: socket.Listen, Callback: func([]byte) error { <-hang; return nil }})
		conn := socket.Connect()
		_, err := conn.Write(append(peerFrame(width4096, []byte("hangs")), peerFrame(width4096, []byte("behind"))...))
		require.NoError(t, err)
		start := time.Now()
		err = l.Close()
		assert.ErrorIs(t, err, ErrCloseTimeout)
		assert.ErrorContains(t, err, "1 callbacks")
		assert.Equal(t, defaultCloseTimeout+abortGrace, time.Since(start))
		close(hang)
		synctest.Wait()
		assert.EqualValues(t, 1, l.dropped.Load(), "nothing is handed over after Close")
	})
}

func TestAnInsecureAddressIsRefused(t *testing.T) {
	insecure := []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:5031"}
	for _, address := range insecure {
		_, err := ListenTCP(ListenerConfig{Address: address, Callback: ignore})
		var refused *netio.InsecureAddressError
		require.ErrorAs(t, err, &refused, address)
		assert.Equal(t, address, refused.Address)
		assert.ErrorIs(t, err, netio.ErrInsecureAddress)
		assert.ErrorContains(t, err, "Insecure: true")
	}
	for _, address := range []string{"127.0.0.1:0", "127.8.9.10:0", "localhost:0"} {
		l, err := ListenTCP(ListenerConfig{Address: address, Callback: ignore})
		require.NoError(t, err, address)
		require.NoError(t, l.Close())
	}
	for _, cfg := range []ListenerConfig{{Insecure: true}, {TLSConfig: &tls.Config{}}} {
		cfg.Address, cfg.Callback = ":0", ignore
		l, err := ListenTCP(cfg)
		require.NoError(t, err)
		require.NoError(t, l.Close())
	}
}

// outsideListener claims to be bound where a name or a hook led it.
type outsideListener struct {
	*testkit.PipeListener
}

func (outsideListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1} }

func TestAnInsecureAddressIsRefusedWhereOnlyTheSocketTells(t *testing.T) {
	socket := outsideListener{testkit.NewPipeListener()}
	_, err := ListenTCP(ListenerConfig{
		Address: "some.name:1", Callback: ignore,
		Listen: func(string, string) (net.Listener, error) { return socket, nil },
	})
	assert.ErrorIs(t, err, netio.ErrInsecureAddress)
	<-socket.Closed
}

func TestAcceptErrorsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket, log, got := testkit.NewPipeListener(), testkit.NewLog(), make(chan string, 1)
		StartListener(t, ListenerConfig{Listen: socket.Listen, Logger: log, Callback: collect(got)})
		start := time.Now()
		for range 10 {
			socket.Accepts <- errors.New("too many open files")
		}
		conn := socket.Connect()
		go func() { _, _ = conn.Write(peerFrame(width4096, []byte("at last"))) }() // ends when it is read
		assert.Equal(t, "at last", <-got)
		// 5, 10, … 640 ms, and 1 s twice
		assert.Equal(t, 5*time.Millisecond*255+2*time.Second, time.Since(start))
		assert.Len(t, log.Lines, 10)
		require.NoError(t, conn.Close())
	})
}

func TestASocketThatSomebodyElseClosesEndsStartListening(t *testing.T) {
	NoLeaks(t)
	socket := testkit.NewPipeListener()
	l, err := ListenTCP(ListenerConfig{Address: "x:1", Listen: socket.Listen, Callback: ignore})
	require.NoError(t, err)
	require.NoError(t, socket.Close())
	assert.ErrorIs(t, l.StartListening(), net.ErrClosed)
	assert.NoError(t, l.Close())
}

func TestMaxConnections(t *testing.T) {
	for _, limits := range []ListenerConfig{{MaxConnections: 2}, {MaxConnectionsPerHost: 2}} {
		NoLeaks(t)
		got, log := make(chan string, 10), testkit.NewLog()
		limits.Callback, limits.Logger = collect(got), log
		l := StartListener(t, limits)
		first, second := newPeerClient(t, l), newPeerClient(t, l)
		for _, p := range []peerClient{first, second} {
			p.send([]byte("in"))
			require.Equal(t, "in", testkit.Receive(t, got))
		}
		newPeerClient(t, l).ended()
		newPeerClient(t, l).ended()
		assert.Contains(t, log.Next(t, "info").Fields["reason"], "MaxConnections")
		assert.Empty(t, log.Lines, "a flood of refusals is one line")

		require.NoError(t, first.conn.Close())
		waitForConnections(l, 1)
		newPeerClient(t, l).send([]byte("room again"))
		assert.Equal(t, "room again", testkit.Receive(t, got))
		second.send([]byte("still in"))
		assert.Equal(t, "still in", testkit.Receive(t, got))
	}
}

// waitForConnections returns when the listener has n. The end of a connection
// has no event that a test could wait for.
func waitForConnections(l *Listener, n int) {
	for {
		l.mu.Lock()
		have := len(l.conns)
		l.mu.Unlock()
		if have == n {
			return
		}
		runtime.Gosched()
	}
}
