package pool

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func ignore([]byte) error { return nil }

func TestListener_StartListeningBlocksUntilClose(t *testing.T) {
	testkit.CheckLeaks(t)
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
	defer func() { _ = conn.Close() }()
	_, err = conn.Write(peerFrame(width4096, nil))
	require.NoError(t, err)
	<-served // it has started: the kernel takes connections before
	require.NoError(t, l.Close())
	assert.NoError(t, <-ended)
	assert.ErrorIs(t, l.StartListening(), ErrClosed)
	assert.ErrorIs(t, l.StartListeningAsync(), ErrClosed)
	assert.NoError(t, l.Close())
}

func TestListener_StartsOnce(t *testing.T) {
	testkit.CheckLeaks(t)
	l := startListener(t, ListenerConfig{Callback: ignore})
	assert.ErrorIs(t, l.StartListeningAsync(), ErrAlreadyOpened)
	assert.ErrorIs(t, l.StartListening(), ErrAlreadyOpened)
}

func TestListener_CloseWithoutStartFreesThePort(t *testing.T) {
	testkit.CheckLeaks(t)
	l, err := ListenTCP(ListenerConfig{Address: "127.0.0.1:0", Callback: ignore})
	require.NoError(t, err)
	require.NoError(t, l.Close())
	startListener(t, ListenerConfig{Address: l.Addr().String(), Callback: ignore})
}

func TestListener_CloseHandsOverWhatWasReceivedAndFreesThePort(t *testing.T) {
	testkit.CheckLeaks(t)
	const count = 20000 // more than the reader buffers: the kernel holds the rest
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var got []string
	l := startListener(t, ListenerConfig{Callback: func(m []byte) error {
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
	startListener(t, ListenerConfig{Address: l.Addr().String(), Callback: ignore}) // while a callback runs
	assert.Empty(t, closed)
	close(release)
	require.NoError(t, <-closed)
	require.Len(t, got, count)
	for i, m := range got {
		require.Equal(t, fmt.Sprintf("%08d", i), m)
	}
}

func TestListener_CloseOfManyCallersEndsOnce(t *testing.T) {
	testkit.CheckLeaks(t)
	l := startListener(t, ListenerConfig{Callback: ignore})
	for range 8 {
		newPeerClient(t, l).send([]byte("m"))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { assert.NoError(t, l.Close()) }) // ends with Close
	}
	wg.Wait()
}

func TestListener_PeerThatNeverStopsDoesNotHoldUpClose(t *testing.T) {
	testkit.CheckLeaks(t)
	got := make(chan struct{}, 1)
	l := startListener(t, ListenerConfig{CloseTimeout: time.Minute, Callback: func([]byte) error {
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

func TestListener_CloseIsBoundedWhenACallbackHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket := testkit.NewPipeListener()
		hang := make(chan struct{})
		l := startListener(t, ListenerConfig{Listen: socket.Listen, Callback: func([]byte) error { <-hang; return nil }})
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

func TestListener_InsecureAddressIsRefused(t *testing.T) {
	insecure := []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:5031"}
	for _, address := range insecure {
		_, err := ListenTCP(ListenerConfig{Address: address, Callback: ignore})
		var refused *InsecureAddressError
		require.ErrorAs(t, err, &refused, address)
		assert.Equal(t, address, refused.Address)
		assert.ErrorIs(t, err, ErrInsecureAddress)
		assert.ErrorContains(t, err, "set Insecure")
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

func TestListener_InsecureAddressOfTheSocketIsRefused(t *testing.T) {
	socket := outsideListener{testkit.NewPipeListener()}
	_, err := ListenTCP(ListenerConfig{
		Address: "some.name:1", Callback: ignore,
		Listen: func(string, string) (net.Listener, error) { return socket, nil },
	})
	require.ErrorIs(t, err, ErrInsecureAddress)
	<-socket.Closed
}

func TestListener_AcceptErrorsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket, log, got := testkit.NewPipeListener(), testkit.NewLog(), make(chan string, 1)
		l := startListener(t, ListenerConfig{Listen: socket.Listen, Logger: log, Callback: collect(got)})
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

		start = time.Now()
		socket.Accepts <- errors.New("and again")
		conn = socket.Connect()
		_, err := conn.Write(peerFrame(width4096, []byte("soon")))
		require.NoError(t, err)
		assert.Equal(t, "soon", <-got)
		assert.Equal(t, acceptDelayMin, time.Since(start), "a connection resets the delay")
		require.NoError(t, conn.Close())

		for range 8 {
			socket.Accepts <- errors.New("too many open files")
		}
		time.Sleep(5 * time.Millisecond * 127)
		synctest.Wait() // within the last delay
		start = time.Now()
		require.NoError(t, l.Close())
		assert.Zero(t, time.Since(start))
	})
}

func TestListener_SocketClosedByAnotherWayEndsStartListening(t *testing.T) {
	testkit.CheckLeaks(t)
	socket := testkit.NewPipeListener()
	l, err := ListenTCP(ListenerConfig{Address: "x:1", Listen: socket.Listen, Callback: ignore})
	require.NoError(t, err)
	require.NoError(t, socket.Close())
	assert.ErrorIs(t, l.StartListening(), net.ErrClosed)
	assert.NoError(t, l.Close())
}

// fromHost is a connection from an address that the test chooses.
type fromHost struct {
	net.Conn
	ip net.IP
}

func (c fromHost) RemoteAddr() net.Addr { return &net.TCPAddr{IP: c.ip, Port: 1} }

func TestListener_MaxConnections(t *testing.T) {
	for _, limits := range []ListenerConfig{{MaxConnections: 2}, {MaxConnectionsPerHost: 2}} {
		synctest.Test(t, func(t *testing.T) {
			socket, log, got := testkit.NewPipeListener(), testkit.NewLog(), make(chan string, 10)
			limits.Callback, limits.Logger, limits.Listen = collect(got), log, socket.Listen
			startListener(t, limits)
			connect := func(host byte) net.Conn {
				client, server := net.Pipe()
				socket.Accepts <- fromHost{server, net.IPv4(192, 0, 2, host)}
				return client
			}
			send := func(conn net.Conn, m string) error {
				_, err := conn.Write(peerFrame(width4096, []byte(m)))
				return err
			}
			first, second := connect(1), connect(1)
			require.NoError(t, send(first, "first"))
			require.NoError(t, send(second, "second"))
			require.Error(t, send(connect(1), "one too many"))
			require.Error(t, send(connect(1), "two too many"))
			synctest.Wait() // a connection is closed before the line is written
			require.Len(t, log.Lines, 1, "a flood of refusals is one line")
			assert.Contains(t, log.Next(t, "info").Fields["reason"], "MaxConnections")
			if limits.MaxConnectionsPerHost > 0 {
				other := connect(2)
				require.NoError(t, send(other, "of another host"))
				require.NoError(t, other.Close())
			} else {
				require.Error(t, send(connect(2), "of another host"))
			}

			require.NoError(t, first.Close())
			synctest.Wait()
			third := connect(1)
			require.NoError(t, send(third, "room again"))
			require.NoError(t, send(second, "still in"))
			require.Error(t, send(connect(1), "one too many again"))
			synctest.Wait() // a connection is closed before the line is written
			require.Len(t, log.Lines, 1, "there was room meanwhile: this is another flood")
			require.NoError(t, second.Close())
			require.NoError(t, third.Close())
		})
	}
}

// lateSocket returns a connection from Accept after it was closed, as one that the kernel had accepted just before.
type lateSocket struct {
	*testkit.PipeListener
	late chan net.Conn
}

func (s lateSocket) Accept() (net.Conn, error) {
	<-s.Closed
	select {
	case conn := <-s.late:
		return conn, nil
	default:
		return nil, net.ErrClosed
	}
}

func TestListener_ConnectionAcceptedWhileClosingIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		socket := lateSocket{testkit.NewPipeListener(), make(chan net.Conn, 1)}
		socket.late <- server
		l := startListener(t, ListenerConfig{
			Callback: func([]byte) error { t.Error("a callback after Close"); return nil },
			Listen:   func(string, string) (net.Listener, error) { return socket, nil },
		})
		closed := make(chan error, 1)
		go func() { closed <- l.Close() }() // ends with Close
		_, err := client.Write(peerFrame(width4096, []byte("too late")))
		assert.ErrorIs(t, err, io.ErrClosedPipe)
		require.NoError(t, <-closed)
	})
}
