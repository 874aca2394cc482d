package tests

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// deafDoor dials, and its connection passes on nothing that it reads while it is deaf.
type deafDoor struct {
	deaf atomic.Bool
	conn atomic.Pointer[net.Conn]
}

func (d *deafDoor) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.conn.Load() != nil {
		return nil, net.ErrClosed
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err == nil {
		d.conn.Store(&conn)
	}
	return hardOfHearing{conn, d}, err
}

type hardOfHearing struct {
	net.Conn
	dial *deafDoor
}

func (c hardOfHearing) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.dial.deaf.Load() {
			return n, err
		}
	}
}

// TestCloseListener_HandlesWhatComesWhileItDrains: a publisher sends messages before it hears that the listener drains, and goes
// away without an answer. They are only here, so that they are handled in the time of the call.
func TestCloseListener_HandlesWhatComesWhileItDrains(t *testing.T) {
	address := freeAddress(t)
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: m, ConsumerGroup: "g", CloseTimeout: time.Minute}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	topic := address + "/orders"
	messages := subscribe(t, sub, topic)
	door := &deafDoor{}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		ManagerConfig: buffstreams.ManagerConfig{Dial: door.dial, CloseTimeout: time.Millisecond},
		Confirm:       buffstreams.ConfirmEnqueued, CloseTimeout: time.Millisecond,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	require.NoError(t, pub.Publish(topic, newMessage("first")))
	receive(t, messages).Ack()
	require.NoError(t, pub.Flush(t.Context()))
	door.deaf.Store(true)

	closed := make(chan error, 1)
	go func() { closed <- m.CloseListener(context.Background(), address) }() // ends with the ack below
	require.Eventually(t, func() bool {                                      // it drains
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	}, patience, time.Millisecond)
	require.NoError(t, pub.Publish(topic, newMessages(2)...))
	busy := receive(t, messages)
	require.NoError(t, (*door.conn.Load()).Close())
	select {
	case err := <-closed:
		require.Fail(t, "a handler has a message that is nowhere else", "%v", err)
	case <-time.After(100 * time.Millisecond): // it sees the end of the connection
	}
	busy.Ack()
	receive(t, messages).Ack()
	require.NoError(t, await(t, closed))
}
