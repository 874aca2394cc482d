package tests

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// placed is a publisher of "orders" on an outbox, with a route by Failover.
func placed(t *testing.T, dir string, addresses ...string) (*buffstreams.Publisher, *outbox.Outbox) {
	ob, err := outbox.Open(outbox.Config{Dir: dir})
	require.NoError(t, err)
	r := route.Route{Policy: route.Failover, Groups: nil, Addresses: addresses}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.Static{"orders": r}, Outbox: ob, CloseTimeout: time.Second,
	}, nil)
	require.NoError(t, err)
	return pub, ob
}

// handing subscribes to "orders" at an address with one message in hand at a time.
func handing(t *testing.T, address string) <-chan *message.Message {
	_, messages := handingAt(t, address)
	return messages
}

func handingAt(t *testing.T, address string) (*buffstreams.Subscriber, <-chan *message.Message) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: address, ConsumerGroup: "g", CloseTimeout: time.Second}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	messages, err := sub.Subscribe(context.Background(), "orders")
	require.NoError(t, err)
	return sub, messages
}

// A restart begins where messages were sent, and takes them back from there: nothing comes twice.
func TestOutboxPlace_RestartBeginsWhereItWas(t *testing.T) {
	dir, a, b := t.TempDir(), freeAddress(t), freeAddress(t)
	atA, atB := handing(t, a), handing(t, b)
	pub, ob := placed(t, dir, a, b)
	for i := range 5 {
		require.NoError(t, pub.Publish("orders", message.NewMessage(fmt.Sprint(i), []byte("x"))))
	}
	inHand := receive(t, atA)
	require.Equal(t, "0", inHand.UUID)
	key := store.TopicKey("orders", "orders", 0, -1)
	require.Equal(t, store.Place{Address: a, Tenure: 1}, ob.Place(key))
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())

	pub, ob = placed(t, dir, b, a) // now it would begin at b
	defer func() {
		require.NoError(t, pub.Close())
		require.NoError(t, ob.Close())
	}()
	select {
	case m := <-atB:
		require.Fail(t, "b gets something while a handler at a has the first", m.UUID)
	case <-time.After(300 * time.Millisecond):
	}
	inHand.Ack()
	for i := 1; i < 5; i++ {
		m := receive(t, atB)
		require.Equal(t, fmt.Sprint(i), m.UUID)
		d, _ := buffstreams.DeliveryFromContext(m.Context())
		require.False(t, d.MaybeDuplicate)
		require.EqualValues(t, 2, d.Tenure)
		m.Ack()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, pub.Drain(ctx))
	require.Equal(t, store.Place{Address: b, Tenure: 2}, ob.Place(key))
	require.Empty(t, atA)
}

// Addresses that left the route strand nothing: the messages go to those that are in it.
func TestOutboxPlace_AnAddressThatLeftTheRoute(t *testing.T) {
	dir, a, b := t.TempDir(), freeAddress(t), freeAddress(t)
	pub, ob := placed(t, dir, a, b)
	atA := handing(t, a)
	for i := range 5 {
		require.NoError(t, pub.Publish("orders", message.NewMessage(fmt.Sprint(i), []byte("x"))))
	}
	receive(t, atA).Ack()
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())

	got := counting(t, b)
	pub, ob = placed(t, dir, b, freeAddress(t))
	defer func() {
		require.NoError(t, pub.Close())
		require.NoError(t, ob.Close())
	}()
	require.Eventually(t, func() bool { return got.Load() >= 3 }, patience, time.Millisecond)
}

// TestOutboxPlace_RouteThatIsAnotherAfterARestart strands nothing, however many addresses it has then.
func TestOutboxPlace_RouteThatIsAnotherAfterARestart(t *testing.T) {
	for name, before := range map[string]int{"three become one": 3, "one is replaced": 1} {
		t.Run(name, func(t *testing.T) {
			dir, home := t.TempDir(), freeAddress(t)
			var left []string
			for range before {
				left = append(left, freeAddress(t))
			}
			first := handing(t, left[0])
			pub, ob := placed(t, dir, left...)
			for i := range 5 {
				require.NoError(t, pub.Publish("orders", message.NewMessage(fmt.Sprint(i), []byte("x"))))
			}
			receive(t, first).Ack() // so that the others have a place
			require.NoError(t, pub.Close())
			require.NoError(t, ob.Close())

			got := counting(t, home)
			pub, ob = placed(t, dir, home)
			require.Eventually(t, func() bool { return got.Load() >= 4 }, patience, time.Millisecond)
			require.NoError(t, pub.Publish("orders", message.NewMessage("later", nil)))
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			require.NoError(t, pub.Drain(ctx))
			require.NoError(t, pub.Close())
			require.NoError(t, ob.Close())
		})
	}
}

// cutDial dials, and passes nothing on in either direction to and from an address while it is deaf.
type cutDial struct {
	address string
	deaf    atomic.Bool
}

type cutConn struct {
	net.Conn
	dial *cutDial
}

func (d *cutDial) dialed(ctx context.Context, network, address string) (net.Conn, error) {
	if address == d.address && d.deaf.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil || address != d.address {
		return conn, err
	}
	return cutConn{conn, d}, nil
}

func (c cutConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.dial.deaf.Load() {
			return n, err
		}
	}
}

func (c cutConn) Write(b []byte) (int, error) {
	if c.dial.deaf.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// TestOutboxPlace_RestartVoidsWhatASilentAddressHas, which the process before had left without an answer.
func TestOutboxPlace_RestartVoidsWhatASilentAddressHas(t *testing.T) {
	t.Parallel()
	dir, a, b := t.TempDir(), freeAddress(t), freeAddress(t)
	atB := handing(t, b)
	subA, atA := handingAt(t, a)
	door := &cutDial{address: a}
	open := func(addresses ...string) (*buffstreams.Manager, *buffstreams.Publisher, *outbox.Outbox) {
		ob, err := outbox.Open(outbox.Config{Dir: dir})
		require.NoError(t, err)
		m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Dial: door.dialed, Acked: quick(buffstreams.AckedConfig{MoveAfter: 300 * time.Millisecond})})
		require.NoError(t, err)
		t.Cleanup(func() { _ = m.Close() })
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
			Manager: m, Resolver: route.Static{"orders": {Addresses: addresses}}, Outbox: ob, CloseTimeout: time.Second,
		}, nil)
		require.NoError(t, err)
		return m, pub, ob
	}
	m, pub, ob := open(a, b)
	for i := range 5 {
		require.NoError(t, pub.Publish("orders", message.NewMessage(fmt.Sprint(i), []byte("x"))))
	}
	key := store.TopicKey("orders", "orders", 0, -1)
	stale := receive(t, atA)
	require.Eventually(t, func() bool { return pub.Stats().Outbox.Pending == 5 }, patience, 10*time.Millisecond)
	door.deaf.Store(true)
	require.Eventually(t, func() bool { return ob.Place(key) == store.Place{Address: b, Tenure: 2} }, patience, 10*time.Millisecond)
	busy := receive(t, atB)
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())
	require.NoError(t, m.Close())

	door.deaf.Store(false)
	m, pub, ob = open(b, a)
	defer func() {
		require.NoError(t, pub.Close())
		require.NoError(t, ob.Close())
	}()
	require.Eventually(t, func() bool { return m.PeerStatus(a).Connected && m.PeerStatus(b).Connected }, patience, 50*time.Millisecond)
	busy.Ack()
	for range 4 {
		receive(t, atB).Ack()
	}
	require.NoError(t, pub.Drain(t.Context()))
	lag := func() int { return subA.Stats().Listeners[0].Topics[0].Groups[0].Lag }
	require.Eventually(t, func() bool { return lag() <= 1 }, patience, 50*time.Millisecond, "a is told")
	stale.Ack()
	select {
	case m := <-atA:
		require.Fail(t, "a hands out what another address has had", m.UUID)
	case <-time.After(300 * time.Millisecond):
	}
}

// TestOutboxPlace_NeverFromTLSToPlaintext, though the route has no other address any more: it stays until that comes back.
func TestOutboxPlace_NeverFromTLSToPlaintext(t *testing.T) {
	server, client := testkit.SelfSignedTLS(t)
	secure, plain := freeAddress(t), freeAddress(t)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: "tls://" + secure, ConsumerGroup: "g", CloseTimeout: time.Second,
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{ServerTLS: server}},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	messages := subscribe(t, sub, "orders")
	ob := openOutbox(t, t.TempDir())
	w := &watched{route: route.Route{
		Addresses:  []string{"tls://" + secure},
		Attributes: map[string]route.Attributes{"tls://" + secure: {ServerName: "127.0.0.1"}}, // as the certificate has it
	}}
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{ClientTLS: client})})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Resolver: w, Outbox: ob, CloseTimeout: time.Second}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	require.NoError(t, pub.Publish("orders", newMessages(5)...))
	busy := receive(t, messages)
	require.Eventually(t, w.isWatched, patience, time.Millisecond)
	got := counting(t, plain)
	w.set(route.Route{Addresses: []string{plain}})
	require.Eventually(t, func() bool { return m.PeerStatus(plain).Connected }, patience, time.Millisecond)
	require.Never(t, func() bool { return got.Load() > 0 }, 300*time.Millisecond, 10*time.Millisecond)
	busy.Ack()
	for range 4 {
		receive(t, messages).Ack()
	}
	drain(t, pub)
	require.Zero(t, got.Load())
}
