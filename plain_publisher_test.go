package buffstreams

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/route"
)

// plainPublisherTo returns one that dials with dial and goes where resolver says. Its messages are sent as they are.
func plainPublisherTo(t *testing.T, dial func(ctx context.Context, network, address string) (net.Conn, error), r route.Resolver, change func(*PublisherConfig)) *Publisher {
	t.Helper()
	cfg := PublisherConfig{
		Wire: WireBuffStreams, Confirm: ConfirmEnqueued, Marshaler: RawMarshaler{}, Resolver: r, PublishTimeout: time.Second,
		CloseTimeout: time.Second, ManagerConfig: ManagerConfig{Dial: dial},
	}
	if change != nil {
		change(&cfg)
	}
	p, err := NewPublisher(cfg, nil)
	require.NoError(t, err)
	return p
}

// A route's addresses are tried by their priority, however the route lists them.
func TestPlainPublisher_TriesTheLowestPriorityFirst(t *testing.T) {
	var dialed []string
	p := plainPublisherTo(t, func(_ context.Context, _, address string) (net.Conn, error) {
		dialed = append(dialed, address)
		return nil, errors.New("away")
	}, route.Static{"orders": {
		Addresses:  []string{"127.0.0.1:3", "127.0.0.1:1", "127.0.0.1:2"},
		Attributes: map[string]route.Attributes{"127.0.0.1:3": {Priority: 3}, "127.0.0.1:1": {Priority: 1}, "127.0.0.1:2": {Priority: 2}},
	}}, nil)
	require.Error(t, p.Publish("orders", textMessage("order")))
	require.Equal(t, []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"}, dialed)
	require.NoError(t, p.Close())
}

// The lookup of a topic and the connection that it needs share the time of the call.
func TestPlainPublisher_LookupAndDialShareTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := plainPublisherTo(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, route.Func(func(context.Context, string) (route.Route, error) {
			time.Sleep(700 * time.Millisecond)
			return route.Route{Addresses: []string{"127.0.0.1:1"}}, nil
		}), nil)
		began := time.Now()
		require.ErrorIs(t, p.Publish("orders", textMessage("order")), ErrTimeout)
		require.Equal(t, time.Second, time.Since(began))
		require.NoError(t, p.Close())
	})
}

// drained is a peer that begins to read after a while, and then takes everything.
type drained struct {
	after time.Duration
	mu    sync.Mutex
	got   int
}

func (d *drained) dial(context.Context, string, string) (net.Conn, error) {
	conn, peer := net.Pipe()
	go func() { // ends with the connection
		time.Sleep(d.after)
		n, _ := io.Copy(io.Discard, peer)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.got += int(n)
	}()
	return conn, nil
}

// A message may have the size of the limit, and no more.
func TestPlainPublisher_TakesAMessageOfTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &drained{}
		p := plainPublisherTo(t, d.dial, route.To("127.0.0.1:1"), func(c *PublisherConfig) { c.MaxMessageSize = 100 })
		require.NoError(t, p.Publish("orders", message.NewMessage("", make([]byte, 100))))
		var large *TooLargeError
		require.ErrorAs(t, p.Publish("orders", message.NewMessage("", make([]byte, 101))), &large)
		require.Equal(t, TooLargeError{Size: 101, Limit: 100}, *large)
		require.NoError(t, p.Close())
		synctest.Wait()
		require.Greater(t, d.got, 100)
	})
}

// A Manager that closes gives its plain writers its own time, as it gives that to all that it has: their Publisher is still there.
func TestManager_CloseSendsWhatPlainWritersHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &drained{after: 2 * time.Second}
		m, err := NewManager(ManagerConfig{Dial: d.dial, CloseTimeout: 10 * time.Second})
		require.NoError(t, err)
		p := plainPublisherTo(t, nil, route.To("127.0.0.1:1"), func(c *PublisherConfig) { c.Manager = m })
		for range 100 {
			require.NoError(t, p.Publish("orders", message.NewMessage("", make([]byte, 1000))))
		}
		require.NoError(t, m.Close())
		synctest.Wait()
		require.Greater(t, d.got, 100*1000)
		_ = p.Close() // the Manager has sent its messages
	})
}

// An address that no topic leads to any more is in use until it has taken everything: the writer would end soon.
func TestPlainPublisher_KeepsAnAddressThatHasNotTakenAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &drained{after: 20 * plainCloseGrace}
		p := plainPublisherTo(t, d.dial, route.To("127.0.0.1:1"), nil)
		for range 100 {
			require.NoError(t, p.Publish("orders", message.NewMessage("", make([]byte, 1000))))
		}
		at := tcp("127.0.0.1:1")
		p.plain.leave(at)
		p.plain.tick()
		require.Contains(t, p.plain.used, at)
		time.Sleep(2 * d.after)
		p.plain.tick()
		require.NotContains(t, p.plain.used, at)
		synctest.Wait()
		require.Greater(t, d.got, 100*1000)
		require.NoError(t, p.plain.use(at), "Close ends the topic's use")
		require.NoError(t, p.Close())
	})
}
