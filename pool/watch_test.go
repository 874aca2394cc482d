package pool

import (
	"bytes"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// watcher counts what it is told.
type watcher struct {
	mu                                           sync.Mutex // guards the fields below
	dialed, connected, accepted, refused, failed int
	lost                                         []hooks.Lost
	blocks                                       chan struct{} // OnLost waits for it, if it is there
}

func (w *watcher) OnDialed(e hooks.Dialed) {
	w.count(&w.dialed)
	if e.Err != nil {
		w.count(&w.failed)
	}
}
func (w *watcher) OnConnected(hooks.Connected) { w.count(&w.connected) }
func (w *watcher) OnAccepted(hooks.Accepted)   { w.count(&w.accepted) }
func (w *watcher) OnRefused(hooks.Refused)     { w.count(&w.refused) }
func (w *watcher) OnLost(e hooks.Lost) {
	w.mu.Lock()
	w.lost = append(w.lost, e)
	w.mu.Unlock()
	if w.blocks != nil {
		<-w.blocks
	}
}

func (w *watcher) count(n *int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*n++
}

// is waits until so many connections were dialed, have failed, were connected and lost.
func (w *watcher) is(t *testing.T, dialed, failed, connected, lost int) {
	t.Helper()
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.dialed == dialed && w.failed == failed && w.connected == connected && len(w.lost) == lost
	}, 30*time.Second, time.Millisecond)
}

// Every connection of a Writer is told once with its end, whichever way that comes: by Reopen, by a peer that is gone, by Close.
func TestHooks_TellEveryConnectionOfAWriterOnce(t *testing.T) {
	w := &watcher{}
	_, err := DialTCP(WriterConfig{Address: "127.0.0.1:1", Hooks: []hooks.Hook{w}})
	require.Error(t, err)
	w.is(t, 1, 1, 0, 0)
	got := make(chan string, 10)
	l := startListener(t, ListenerConfig{Callback: collect(got)})
	writer := dialWriterTo(t, l, WriterConfig{Hooks: []hooks.Hook{w}})
	w.is(t, 2, 1, 1, 0)
	require.NoError(t, writer.Reopen())
	w.is(t, 3, 1, 2, 1)
	require.NoError(t, l.Close())
	w.is(t, 3, 1, 2, 2)
	again := startListener(t, ListenerConfig{Address: l.Addr().String(), Callback: collect(got)})
	_, err = writer.Write([]byte("again"))
	require.NoError(t, err)
	require.Equal(t, "again", <-got)
	require.NoError(t, writer.Close())
	require.Len(t, w.lost, 3)
	for _, e := range w.lost {
		require.Equal(t, l.Addr().String(), e.Address)
		require.Empty(t, e.Listener)
	}
	require.NoError(t, again.Close())
}

// A Listener tells of what it admits, what it refuses, and of the end of what it had admitted.
func TestHooks_TellTheConnectionsOfAListener(t *testing.T) {
	w := &watcher{}
	l := startListener(t, ListenerConfig{
		Callback: func([]byte) error { return nil }, MaxConnections: 1, Hooks: []hooks.Hook{w},
	})
	first := newPeerClient(t, l)
	require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.accepted == 1 }, 30*time.Second, time.Millisecond)
	second := newPeerClient(t, l)
	second.ended()
	require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.refused == 1 }, 30*time.Second, time.Millisecond)
	require.NoError(t, first.conn.Close())
	w.is(t, 0, 0, 0, 1)
	require.NoError(t, l.Close())
	require.Equal(t, "127.0.0.1:0", w.lost[0].Listener)
	require.Equal(t, first.conn.LocalAddr().String(), w.lost[0].Address)
	require.Equal(t, []int{1, 1}, []int{w.accepted, w.refused})
}

// A hook that does not return holds up Close until CloseTimeout, at both ends, and no longer.
func TestHooks_OneThatBlocksHoldsUpNoClose(t *testing.T) {
	w := &watcher{blocks: make(chan struct{})}
	t.Cleanup(func() { close(w.blocks) })
	l := startListener(t, ListenerConfig{
		Callback: func([]byte) error { return nil }, CloseTimeout: 50 * time.Millisecond, Hooks: []hooks.Hook{w},
	})
	writer := dialWriterTo(t, l, WriterConfig{CloseTimeout: 50 * time.Millisecond, Hooks: []hooks.Hook{w}})
	began := time.Now()
	_ = writer.Close()
	_ = l.Close()
	require.Less(t, time.Since(began), 20*time.Second)
}

// A hook that does not return is called by the watcher of the connection, or by a Reopen: Close ends in its time, and
// so does that Reopen.
func TestHooks_CloseEndsACallThatWaitsForOne(t *testing.T) {
	for name, lose := range map[string]func(*testing.T, *Writer, net.Conn) error{
		"the peer closes": func(t *testing.T, _ *Writer, peer net.Conn) error { t.Helper(); return peer.Close() },
		"Reopen":          func(_ *testing.T, w *Writer, _ net.Conn) error { return w.Reopen() },
	} {
		t.Run(name, func(t *testing.T) {
			server := testkit.NewPeerServer(t, "127.0.0.1:0")
			w := &watcher{blocks: make(chan struct{})}
			t.Cleanup(func() { close(w.blocks) })
			writer, err := DialTCP(WriterConfig{Address: server.Address(), CloseTimeout: 20 * time.Millisecond, Hooks: []hooks.Hook{w}})
			require.NoError(t, err)
			peer := server.Accept(t)
			require.Eventually(t, func() bool { // sendLoop has nothing to do
				writer.mu.Lock()
				defer writer.mu.Unlock()
				return writer.owner == ownerNone
			}, 30*time.Second, time.Millisecond)
			lost, closed := make(chan error, 1), make(chan error, 1)
			go func() { lost <- lose(t, writer, peer) }() // ends with Close
			require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.lost) > 0 }, 30*time.Second, time.Millisecond)
			go func() { closed <- writer.Close() }() // ends with CloseTimeout
			require.NoError(t, testkit.Receive(t, closed))
			if err := testkit.Receive(t, lost); err != nil {
				require.ErrorIs(t, err, ErrClosed)
			}
		})
	}
}

// A peer has sent so much to a connection that is only written to that it is not read any more: its end is told of all
// the same.
func TestHooks_TellOfAConnectionThatIsReadNoMore(t *testing.T) {
	for name, end := range map[string]func(*Writer) error{"Reopen": (*Writer).Reopen, "Close": (*Writer).Close} {
		t.Run(name, func(t *testing.T) {
			server := testkit.NewPeerServer(t, "127.0.0.1:0")
			w := &watcher{}
			writer := dialTest(t, WriterConfig{Address: server.Address(), Hooks: []hooks.Hook{w}})
			conn := server.Accept(t)
			require.Eventually(t, func() bool { return watchers() == 1 }, 30*time.Second, time.Millisecond)
			_, err := conn.Write(make([]byte, discardLimit))
			require.NoError(t, err)
			require.Eventually(t, func() bool { return watchers() == 0 }, 30*time.Second, time.Millisecond)
			require.NoError(t, end(writer))
			require.Len(t, w.lost, 1)
		})
	}
}

// watchers is the number of goroutines that read for a Writer.
func watchers() int {
	stacks := make([]byte, 1<<20)
	return bytes.Count(stacks[:runtime.Stack(stacks, true)], []byte("pool.(*Writer).watch("))
}

// Without a callback Close waits for all that its connections do: not for a hook that does not return.
func TestHooks_OneThatBlocksHoldsUpNoCloseOfAListenerWithAChannel(t *testing.T) {
	w := &watcher{blocks: make(chan struct{})}
	l := startListener(t, ListenerConfig{
		Messages: make(chan []byte), CloseTimeout: 20 * time.Millisecond, Hooks: []hooks.Hook{w},
	})
	t.Cleanup(func() { close(w.blocks) })
	require.NoError(t, newPeerClient(t, l).conn.Close())
	w.is(t, 0, 0, 0, 1)
	closed := make(chan error, 1)
	go func() { closed <- l.Close() }() // ends with CloseTimeout
	require.ErrorIs(t, testkit.Receive(t, closed), ErrCloseTimeout)
}

// The Manager's hooks are those of Writers and Listeners that have none.
func TestHooks_OfAManager(t *testing.T) {
	w := &watcher{}
	m, err := NewManager(ManagerConfig{Hooks: []hooks.Hook{w}})
	require.NoError(t, err)
	require.NoError(t, m.StartListening(ListenerConfig{Address: "127.0.0.1:0", Callback: func([]byte) error { return nil }}))
	require.NoError(t, m.Dial(WriterConfig{Address: m.ListenAddress("127.0.0.1:0").(*net.TCPAddr).String()}))
	w.is(t, 1, 0, 1, 0)
	require.Eventually(t, func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.accepted == 1 }, 30*time.Second, time.Millisecond)
	require.NoError(t, m.Close())
	w.is(t, 1, 0, 1, 2)
}
