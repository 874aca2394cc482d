package tests

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// doomed is a publisher's process that stops to read, and may be killed.
type doomed struct {
	pub    *buffstreams.Publisher
	told   failures
	mu     sync.Mutex
	conns  []*deafConn
	killed bool
}

// deafConn is a connection of which nothing is read any more once deaf is closed.
type deafConn struct {
	net.Conn
	deaf, closed chan struct{}
	once         sync.Once
}

func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.deaf:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func (c *deafConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }

func newDoomed(t *testing.T) *doomed {
	t.Helper()
	d := &doomed{}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		CloseTimeout: 100 * time.Millisecond, OnFailure: d.told.add,
		ManagerConfig: buffstreams.ManagerConfig{Dial: d.dial, Acked: quick(buffstreams.AckedConfig{})},
	}, nil)
	require.NoError(t, err)
	d.pub = pub
	t.Cleanup(func() { _ = pub.Close() })
	return d
}

func (d *doomed) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.killed {
		return nil, errors.New("this process is dead")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &deafConn{Conn: conn, deaf: make(chan struct{}), closed: make(chan struct{})}
	d.conns = append(d.conns, c)
	return c, nil
}

// stopReading has it read nothing of its present connections any more.
func (d *doomed) stopReading() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		close(c.deaf)
	}
}

// loseConnections resets its present connections. With kill it makes no others.
func (d *doomed) loseConnections(kill bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.killed = kill
	for _, c := range d.conns {
		_ = c.Conn.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	d.conns = nil
}

// rejecting is a receiver that has nacked a message of a publisher which did not read that.
func rejecting(t *testing.T, h *house, d *doomed) {
	t.Helper()
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 }), h.topic("a"))
	require.NoError(t, d.pub.Publish(h.topic("a"), newMessages(1)...))
	msg := receive(t, messages)
	d.stopReading()
	msg.Nack()
	require.Eventually(t, func() bool { return h.manager.Stats().Listeners[0].Rejected > 0 }, 20*time.Second, time.Millisecond)
}

// TestUnheard_OfAPublisherThatIsKilled: the rejection was written to a connection that lived.
func TestUnheard_OfAPublisherThatIsKilled(t *testing.T) {
	t.Parallel()
	for name, patience := range map[string]time.Duration{"when it stays away": 3 * time.Second, "at Close": time.Hour} {
		t.Run(name, func(t *testing.T) {
			var told failures
			cfg := buffstreams.ManagerConfig{OnFailure: told.add}
			cfg.Acked.PingAfter, cfg.Acked.DeadAfter = patience/2, patience
			h, d := newHouse(t, cfg), newDoomed(t)
			rejecting(t, h, d)
			d.loseConnections(true)
			if patience == time.Hour {
				require.Empty(t, told.got())
				require.NoError(t, h.manager.Close())
			}
			require.Eventually(t, func() bool { return len(told.got()) > 0 }, 20*time.Second, time.Millisecond)
			require.Equal(t, numbers(0, 1), told.got())
			var reason *buffstreams.AttemptsExhaustedError
			require.ErrorAs(t, told.errs[0], &reason)
			require.NoError(t, h.manager.Close())
			require.Len(t, told.got(), 1, "once")
		})
	}
}

// TestUnheard_OfAPublisherThatCloses: its Close crosses the rejection.
func TestUnheard_OfAPublisherThatCloses(t *testing.T) {
	var told failures
	h, d := newHouse(t, buffstreams.ManagerConfig{OnFailure: told.add}), newDoomed(t)
	rejecting(t, h, d)
	require.NoError(t, d.pub.Close(), "it cannot know")
	require.Empty(t, d.told.got())
	require.Eventually(t, func() bool { return len(told.got()) > 0 }, 20*time.Second, time.Millisecond)
	require.Equal(t, numbers(0, 1), told.got())
}

// TestUnheard_OfAPublisherThatComesBack: it alone is told.
func TestUnheard_OfAPublisherThatComesBack(t *testing.T) {
	t.Parallel()
	var told failures
	h, d := newHouse(t, buffstreams.ManagerConfig{OnFailure: told.add}), newDoomed(t)
	rejecting(t, h, d)
	d.loseConnections(false)
	require.Eventually(t, func() bool { return len(d.told.got()) > 0 }, 20*time.Second, time.Millisecond)
	require.Equal(t, numbers(0, 1), d.told.got())
	require.NoError(t, d.pub.Drain(t.Context()))
	require.NoError(t, d.pub.Close())
	require.NoError(t, h.manager.Close())
	require.Empty(t, told.got())
}
