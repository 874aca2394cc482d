package components

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// mortal is a socket that can die with all of its connections, as that of a process that is killed.
type mortal struct {
	net.Listener
	mu    sync.Mutex // guards conns
	conns []net.Conn
}

func (m *mortal) Accept() (net.Conn, error) {
	conn, err := m.Listener.Accept()
	if err == nil {
		m.mu.Lock()
		m.conns = append(m.conns, conn)
		m.mu.Unlock()
	}
	return conn, err
}

// cut ends the connections, without a word.
func (m *mortal) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, conn := range m.conns {
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}
	m.conns = nil
}

// newMortal is newListening with a socket that can die.
func newMortal(t testing.TB) (*buffstreams.Manager, *mortal, string) {
	t.Helper()
	ln, err := net.Listen("tcp", testkit.Host()+":0")
	require.NoError(t, err)
	m := &mortal{Listener: ln}
	t.Cleanup(func() { _ = ln.Close() })
	manager := newManager(t, buffstreams.ManagerConfig{
		CloseTimeout: 100 * time.Millisecond,
		Listen:       func(string, string) (net.Listener, error) { return m, nil },
	})
	return manager, m, ln.Addr().String()
}

// seen is one call of a handler.
type seen struct {
	at       time.Time
	delivery buffstreams.Delivery
}

// TestRouter_ADelayOutlivesATimeoutAPanicAndTheConnection: the handler asks for the delay when its context's time is over already,
// panics, and the connection is cut while the message waits. It comes once, when it was asked for, and says how often it came.
func TestRouter_ADelayOutlivesATimeoutAPanicAndTheConnection(t *testing.T) {
	const after = 700 * time.Millisecond
	manager, socket, address := newMortal(t)
	p := &pair{listens: manager, address: address, sends: newManager(t, buffstreams.ManagerConfig{})}
	calls := make(chan seen, 10)
	r := newRouter(t)
	r.AddMiddleware(middleware.Recoverer, middleware.Timeout(10*time.Millisecond))
	r.AddConsumerHandler("h", "orders", p.subscriber(t, "g", nil), func(m *message.Message) error {
		d, ok := buffstreams.DeliveryFromContext(m.Context())
		if !ok {
			return errWanted
		}
		calls <- seen{time.Now(), d}
		if d.Attempt > 1 {
			return nil
		}
		<-m.Context().Done() // the middleware's: the delivery goes on
		if !buffstreams.RedeliverAfter(m.Context(), after) {
			return nil // which the test sees as no second call
		}
		panic("a handler that fails")
	})
	run(t, r)
	pub := p.publisher(t)
	require.NoError(t, pub.Publish("orders", newMessages(1)...))
	first := receive(t, calls)
	time.Sleep(50 * time.Millisecond) // into the delay
	socket.cut()
	require.NoError(t, pub.Publish("orders", newMessages(1)...), "the connection is there again")
	require.Equal(t, 1, first.delivery.Attempt)
	require.False(t, first.delivery.Redelivered)
	second := receive(t, calls)
	require.Equal(t, 2, second.delivery.Attempt)
	require.True(t, second.delivery.Redelivered)
	require.False(t, second.delivery.MaybeDuplicate, "it was nowhere else")
	require.GreaterOrEqual(t, second.at.Sub(first.at), after)
	require.Less(t, second.at.Sub(first.at), after+patience)
	third := receive(t, calls) // the message behind it, with its own delivery
	require.Equal(t, 1, third.delivery.Attempt)
}

// TestRouter_ADelayEndsWithTheRouter: a message that waits for an hour holds up no Close, and the next Router gets it at once, marked.
func TestRouter_ADelayEndsWithTheRouter(t *testing.T) {
	p := newPair(t)
	hourly := func(c *buffstreams.SubscriberConfig) { c.CloseTimeout = time.Hour }
	begin := func() (*message.Router, chan seen) {
		calls := make(chan seen, 10)
		r := newRouter(t)
		r.AddConsumerHandler("h", "orders", p.subscriber(t, "g", hourly), func(m *message.Message) error {
			d, _ := buffstreams.DeliveryFromContext(m.Context())
			calls <- seen{time.Now(), d}
			buffstreams.RedeliverAfter(m.Context(), time.Hour)
			return errWanted
		})
		run(t, r)
		return r, calls
	}
	first, calls := begin()
	pub := p.publisher(t)
	require.NoError(t, pub.Publish("orders", newMessages(1)...))
	require.False(t, receive(t, calls).delivery.Redelivered)
	began := time.Now()
	require.NoError(t, first.Close())
	require.Less(t, time.Since(began), patience/2)
	_, calls = begin()
	require.True(t, receive(t, calls).delivery.Redelivered)
}

// TestRouter_AMessageOfAReceiverThatDiedIsMarked: what the first replica had in hand when it was gone comes to the second's Router, and
// says that it may have been handled; what was never sent there says nothing.
func TestRouter_AMessageOfAReceiverThatDiedIsMarked(t *testing.T) {
	dying, socket, first := newMortal(t)
	p := &pair{listens: dying, address: first, sends: newManager(t, buffstreams.ManagerConfig{})}
	held := make(chan struct{}, 1)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	messages, err := p.subscriber(t, "g", nil).Subscribe(context.Background(), "orders")
	require.NoError(t, err)
	go func() { // ends with the subscription
		for m := range messages {
			held <- struct{}{}
			<-release
			m.Nack()
		}
	}()
	standby, second := newListening(t, buffstreams.ManagerConfig{})
	other := &pair{listens: standby, address: second}
	calls := make(chan seen, 10)
	r := newRouter(t)
	r.AddConsumerHandler("h", "orders", other.subscriber(t, "g", nil), func(m *message.Message) error {
		d, _ := buffstreams.DeliveryFromContext(m.Context())
		calls <- seen{time.Now(), d}
		return nil
	})
	run(t, r)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: p.sends, Confirm: buffstreams.ConfirmEnqueued,
		Resolver: route.Static{"orders": {
			Addresses: []string{first, second}, Policy: route.Failover,
			Attributes: map[string]route.Attributes{second: {Priority: 1}},
		}},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	require.NoError(t, pub.Publish("orders", newMessages(1)...))
	receive(t, held)
	require.NoError(t, socket.Close())
	socket.cut()
	marked := receive(t, calls)
	require.NoError(t, pub.Publish("orders", newMessages(1)...))
	fresh := receive(t, calls)
	require.True(t, marked.delivery.MaybeDuplicate)
	require.Greater(t, marked.delivery.Tenure, uint64(1))
	require.False(t, fresh.delivery.MaybeDuplicate)
	require.Equal(t, 1, marked.delivery.Attempt)
}
