package tests

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// mortal is a listener that can look as if its process had ended.
type mortal struct {
	net.Listener
	mu    sync.Mutex // guards conns
	conns []net.Conn
}

func (m *mortal) Accept() (net.Conn, error) {
	c, err := m.Listener.Accept()
	if err == nil {
		m.mu.Lock()
		m.conns = append(m.conns, c)
		m.mu.Unlock()
	}
	return c, err
}

// kill resets the connections; nothing listens any more.
func (m *mortal) kill() {
	_ = m.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
}

// TestRoute_AddressEndsInTheMidstOfItsDrain: it has said that it closes, has given back what its handlers do not have, and is
// killed before they have ended.
func TestRoute_AddressEndsInTheMidstOfItsDrain(t *testing.T) {
	for _, confirm := range []buffstreams.Confirm{buffstreams.ConfirmReceived, buffstreams.ConfirmHandled, buffstreams.ConfirmEnqueued} {
		for _, policy := range []route.Policy{route.Failover, route.RoundRobin, route.LeastPending, route.Hash} {
			t.Run(fmt.Sprintf("policy %d confirm %d", policy, confirm), func(t *testing.T) {
				t.Parallel()
				endsInDrain(t, policy, confirm)
			})
		}
	}
}

func endsInDrain(t *testing.T, policy route.Policy, confirm buffstreams.Confirm) {
	ln, err := net.Listen("tcp", testkit.Host()+":0") // its port is free again when it ends
	require.NoError(t, err)
	door := &mortal{Listener: ln}
	first, second := ln.Addr().String(), freeAddress(t)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ManagerConfig: buffstreams.ManagerConfig{Listen: func(string, string) (net.Listener, error) { return door, nil }},
		ListenAddress: first, ConsumerGroup: "g", MaxInFlight: 2, CloseTimeout: 20 * time.Second,
	}, nil)
	require.NoError(t, err)
	held := subscribe(t, sub, "orders")
	sending, err := buffstreams.NewManager(buffstreams.ManagerConfig{CloseTimeout: time.Second})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sending.Close() })
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: sending, Resolver: route.Static{"orders": {
			Addresses: []string{first, second}, Policy: policy, HashKey: "k",
			Attributes: map[string]route.Attributes{first: {Priority: 1, Weight: 1}, second: {Priority: 2, Weight: 1}},
		}},
		Confirm: confirm, PublishTimeout: 20 * time.Second, CloseTimeout: time.Second,
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	const count = 32
	var calls []<-chan error
	for i := range count {
		msg := newMessage("x")
		msg.Metadata.Set("k", fmt.Sprint(i))
		calls = append(calls, later(func() error { return pub.Publish("orders", msg) }))
	}
	busy := []*message.Message{receive(t, held), receive(t, held)}
	pending := func() (n int) {
		all := sending.Stats().Addresses
		for i := range all {
			n += all[i].Pending
		}
		return n
	}
	require.Eventually(t, func() bool { return pending() == count }, patience, 10*time.Millisecond)
	counting(t, second)
	require.Eventually(t, func() bool { return sending.PeerStatus(second).Connected }, patience, 10*time.Millisecond)
	closed := later(sub.Close)
	require.Eventually(t, func() bool { return givenBack(sub) }, patience, 50*time.Millisecond)
	door.kill()
	began := time.Now()
	for _, c := range calls {
		require.NoError(t, requireResult(t, c))
	}
	require.Eventually(t, func() bool { return pending() == 0 }, patience, 50*time.Millisecond)
	t.Logf("all handled %v after the end", time.Since(began))
	for _, m := range busy { // its handlers end too late
		m.Ack()
	}
	for m := range held {
		m.Ack()
	}
	_ = requireResult(t, closed)
}

// givenBack tells that a listener's topic holds no more than what handlers have.
func givenBack(sub *buffstreams.Subscriber) bool {
	listeners := sub.Stats().Listeners
	for i := range listeners {
		topics := listeners[i].Topics
		for k := range topics {
			for _, g := range topics[k].Groups {
				if g.Lag > 2 {
					return false
				}
			}
		}
	}
	return true
}
