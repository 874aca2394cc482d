package tests

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// gate holds up what a listener's connections write.
type gate struct {
	net.Listener
	mu sync.Mutex // held while nothing may be written
}

func (g *gate) Accept() (net.Conn, error) {
	conn, err := g.Listener.Accept()
	return gated{conn, g}, err
}

type gated struct {
	net.Conn
	gate *gate
}

func (c gated) Write(b []byte) (int, error) {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	return c.Conn.Write(b)
}

// TestSubscription_AcksAreWrittenBeforeItsChannelCloses: a program may end then.
func TestSubscription_AcksAreWrittenBeforeItsChannelCloses(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{Listener: ln}
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{
		CloseTimeout: time.Second, Listen: func(string, string) (net.Listener, error) { return g, nil },
	})
	require.NoError(t, err)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: m, ConsumerGroup: "g", CloseTimeout: patience}, nil)
	require.NoError(t, err)
	topic := ln.Addr().String() + "/a"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	messages, err := sub.Subscribe(ctx, topic)
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(topic, newMessages(1)...))
	msg := receive(t, messages)
	g.mu.Lock()
	msg.Ack()
	cancel()
	closed := make(chan struct{})
	go func() { // ends with the subscription
		defer close(closed)
		for range messages {
			continue
		}
	}()
	require.Never(t, func() bool { return isClosed(closed) }, 50*time.Millisecond, time.Millisecond)
	g.mu.Unlock()
	<-closed
	require.NoError(t, pub.Drain(t.Context()), "the ack has been written")
	require.NoError(t, pub.Close())
	require.NoError(t, sub.Close())
	require.NoError(t, m.Close())
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
