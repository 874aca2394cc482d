package pool

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

func batchOf(t *testing.T, messages ...string) *session.Batch {
	var b session.Batch
	for _, m := range messages {
		_, ok, err := b.Append(1<<20, func(dst []byte) ([]byte, error) { return append(dst, m...), nil })
		require.NoError(t, err)
		require.True(t, ok)
	}
	return &b
}

type consumer struct {
	member *dispatch.Member
	wake   chan struct{}
}

func newConsumer(e *Endpoint, topic string) *consumer {
	c := &consumer{wake: make(chan struct{}, 1)}
	c.member = e.Topic(topic).Join("g", func() {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	})
	return c
}

func (c *consumer) take() dispatch.Delivery {
	for {
		if d, ok := c.member.Take(); ok {
			return d
		}
		<-c.wake
	}
}

func newPair(t *testing.T, cfg AckedConfig) (*Manager, *Link, *Endpoint, Target) {
	m := newTestManager(t, ManagerConfig{Acked: cfg})
	e, err := m.Endpoint(Target{Network: "tcp", Address: "127.0.0.1:0"})
	require.NoError(t, err)
	l, err := m.Link(Target{Network: "tcp", Address: e.Addr().String()})
	require.NoError(t, err)
	return m, l, e, Target{Network: "tcp", Address: "127.0.0.1:0"}
}

// The batch does not fit the window at once: its first message is refused before the last one is enqueued.
func TestARefusalBeforeTheWholeBatchWasEnqueued(t *testing.T) {
	_, l, e, _ := newPair(t, AckedConfig{WindowMessages: 2})
	c := newConsumer(e, "a")
	result := make(chan error, 1)
	go func() {
		_, err := l.Publish(context.Background(), "a", batchOf(t, "1", "2", "3", "4"), session.Handled, 10*time.Second)
		result <- err
	}()
	c.member.Refuse(c.take(), dispatch.Refusal{Reason: "no"})
	for range 3 {
		c.member.Settle(c.take())
	}
	var refused *session.PeerError
	err := <-result
	require.True(t, errors.As(err, &refused), "%v", err)
}

// What a closed endpoint held goes back to the process's budget.
func TestAClosedEndpointGivesTheBudgetBack(t *testing.T) {
	m, l, e, target := newPair(t, AckedConfig{})
	c := newConsumer(e, "a")
	_, err := l.Publish(context.Background(), "a", batchOf(t, "1", "2", "3"), session.Received, 10*time.Second)
	require.NoError(t, err)
	c.member.Return(c.take())
	c.member.Leave()
	require.NoError(t, m.CloseEndpoint(context.Background(), target))
	require.True(t, m.acked.held.Take(m.acked.cfg.MemoryLimit), "all of it is free")
}
