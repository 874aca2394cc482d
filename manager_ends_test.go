package buffstreams

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// leavingListener is one whose only publisher goes away instead of answering Drain, with a message that was under way.
type leavingListener struct {
	listener
	copies atomic.Int64
	ended  func()
}

func (*leavingListener) Drain()                      {}
func (l *leavingListener) OnlyCopies() int           { return int(l.copies.Load()) }
func (l *leavingListener) EndMembers()               { l.ended() }
func (*leavingListener) HasMembers() bool            { return false }
func (*leavingListener) Unkept() map[string][][]byte { return nil }
func (*leavingListener) Close(context.Context) error { return nil }

func (l *leavingListener) AwaitAnswers(context.Context) {
	if l.copies.Load() == 0 {
		l.copies.Store(1)
		time.AfterFunc(time.Second, func() { l.copies.Store(0) }) // it was handled
	}
}

// TestCloseListener_HandlesWhatArrivesWhileItDrains: a publisher that goes away before it answers keeps nothing.
func TestCloseListener_HandlesWhatArrivesWhileItDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewManager(ManagerConfig{})
		require.NoError(t, err)
		began, ended := time.Now(), time.Duration(0)
		l := &leavingListener{}
		l.ended = func() { ended = time.Since(began) }
		o := &opening{done: make(chan struct{}), listener: l}
		close(o.done)
		m.listeners[anyPort] = o
		require.NoError(t, m.CloseListener(t.Context(), anyPort.Address))
		require.GreaterOrEqual(t, ended, time.Second)
		require.Less(t, ended, 2*time.Second)
		require.NoError(t, m.Close())
	})
}

// knowingListener knows who has sent to it.
type knowingListener struct {
	listener
	knows [16]byte
}

func (*knowingListener) Addr() net.Addr          { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 7} }
func (l *knowingListener) Knows(p [16]byte) bool { return l.knows == p }

// TestSendersTo_FindsThoseToOurOwnListeners, by the address or, where that was dialed by another name, by who has sent.
func TestSendersTo_FindsThoseToOurOwnListeners(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	direct, named, other := senderTo(t, m, tcp("127.0.0.1:7")), senderTo(t, m, tcp("localhost:7")), senderTo(t, m, tcp("127.0.0.1:8"))
	o := &opening{done: make(chan struct{}), listener: &knowingListener{knows: named.Publisher()}}
	listeners := map[netio.Target]*opening{anyPort: o}
	require.Empty(t, sendersTo(listeners, m.senders()), "it does not listen yet")
	close(o.done)
	own := sendersTo(listeners, m.senders())
	require.Equal(t, map[netio.Target]*sender.Sender{tcp("127.0.0.1:7"): direct, tcp("localhost:7"): named}, own)
	require.Equal(t, map[netio.Target]*sender.Sender{tcp("127.0.0.1:8"): other}, without(m.senders(), own))
	o.err = net.ErrClosed
	require.Empty(t, sendersTo(listeners, m.senders()), "it could not be opened")
}

// TestManager_CloseEndsWhatClosesAListener when its own time is over, however long the other has.
func TestManager_CloseEndsWhatClosesAListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := NewManager(ManagerConfig{})
		require.NoError(t, err)
		m.listeners[anyPort] = &opening{}
		c, first := m.beginClosing(anyPort)
		require.True(t, first)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		go func() { // ends with ctx
			<-c.expired.Done()
			close(c.done)
		}()
		m.awaitClosing(ctx)
		require.Equal(t, time.Second, time.Since(began))
		require.True(t, isClosed(c.done))
		delete(m.listeners, anyPort)
		require.NoError(t, m.Close())
	})
}

// TestCloseListener_TakesBackWhatAHandlerHas when its time is over: the publisher keeps it.
func TestCloseListener_TakesBackWhatAHandlerHas(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	p := newStatsPair(t, PublisherConfig{}, SubscriberConfig{Manager: m, CloseTimeout: time.Hour})
	out, err := p.sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	require.NoError(t, p.pub.Publish(p.topic, textMessage("order")))
	msg := <-out
	defer msg.Ack() // else what closes the Subscriber waits for an hour, should this fail
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- m.CloseListener(ctx, "127.0.0.1:0") }() // ends soon after ctx
	require.NoError(t, testkit.Receive(t, closed), "it is not lost")
	require.Error(t, msg.Context().Err())
	_, ok := <-out
	require.False(t, ok)
}
