package tests

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// TestPublisher_CloseAccountsForItsOwn: of publishers that share a Manager, and so a stream, one neither waits for what another
// has published after it, nor counts that. What is received is a prefix. A second spelling of the topic is the same stream.
func TestPublisher_CloseAccountsForItsOwn(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{WindowMessages: 4}})
	require.NoError(t, h.newSubscriber(t, nil).SubscribeInitialize(h.topic("a")))
	m, _ := newPeer(t, buffstreams.ManagerConfig{CloseTimeout: 10 * time.Millisecond})
	open := func(timeout time.Duration) *buffstreams.Publisher {
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: timeout}, nil)
		require.NoError(t, err)
		return pub
	}
	received, stuck, other := open(patience), open(10*time.Millisecond), open(10*time.Millisecond)
	require.NoError(t, received.Publish(h.topic("a"), newMessages(4)...), "what the receiver has room for")
	require.NoError(t, other.Publish(h.topic("a"), newMessages(5)...))
	require.NoError(t, stuck.Publish(h.topic("a"), newMessages(2)...))
	require.NoError(t, stuck.Publish("tcp://"+h.topic("a"), newMessages(3)...))
	require.NoError(t, other.Publish(h.topic("a"), newMessages(7)...))

	begin := time.Now()
	require.NoError(t, received.Close())
	require.Less(t, time.Since(begin), patience/2)
	requireUndelivered(t, stuck.Close(), "a", 5+2+3) // with those before its own
}

// TestPublisher_CloseBesideOneThatPublishes at each level: neither notices the other.
func TestPublisher_CloseBesideOneThatPublishes(t *testing.T) {
	for _, level := range []buffstreams.Confirm{buffstreams.ConfirmReceived, buffstreams.ConfirmEnqueued, buffstreams.ConfirmHandled} {
		t.Run(fmt.Sprint(level), func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxInFlight = 100 }), h.topic("a"))
			go ackAll(messages)
			m, _ := newPeer(t, buffstreams.ManagerConfig{CloseTimeout: patience})
			open := func() *buffstreams.Publisher {
				pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, Confirm: level, CloseTimeout: patience}, nil)
				require.NoError(t, err)
				return pub
			}
			var stop atomic.Bool
			other := open()
			busy := later(func() (err error) {
				for err == nil && !stop.Load() {
					err = other.Publish(h.topic("a"), newMessages(10)...)
				}
				return err
			})
			for range 20 {
				pub := open()
				require.NoError(t, pub.Publish(h.topic("a"), newMessages(5)...))
				require.NoError(t, pub.Close())
			}
			stop.Store(true)
			require.NoError(t, requireResult(t, busy))
			require.NoError(t, other.Close())
		})
	}
}
