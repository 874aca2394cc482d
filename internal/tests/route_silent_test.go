package tests

import (
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// freezing is the way to a listener in memory. While it is frozen nothing comes through, and no end learns that.
type freezing struct {
	*testkit.PipeListener
	mu     sync.Mutex // guards the fields below
	frozen bool
	conns  []net.Conn
}

func (f *freezing) dial(ctx context.Context) (net.Conn, error) {
	if f.isFrozen() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	conn := f.Connect()
	f.conns = append(f.conns, conn)
	return &frozenConn{conn, f}, nil
}

func (f *freezing) isFrozen() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.frozen
}

func (f *freezing) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = true
}

// thaw ends that: the connections that lost something end too.
func (f *freezing) thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.frozen = false
	for _, c := range f.conns {
		_ = c.Close()
	}
}

type frozenConn struct {
	net.Conn
	way *freezing
}

func (c *frozenConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.way.isFrozen() {
			return n, err
		}
	}
}

func (c *frozenConn) Write(b []byte) (int, error) {
	if c.way.isFrozen() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// inMemory returns the messages of a topic at a listener in memory.
func inMemory(t *testing.T, f *freezing, topic string) (*buffstreams.Subscriber, <-chan *message.Message) {
	t.Helper()
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: "127.0.0.1:1", ConsumerGroup: "g", CloseTimeout: time.Second, ManagerConfig: buffstreams.ManagerConfig{Listen: f.Listen},
	}, nil)
	require.NoError(t, err)
	return sub, subscribe(t, sub, topic)
}

// TestRoute_ASilentAddressThatLeftIsTold, when it is back, what has gone elsewhere meanwhile: it delivers nothing more of that, and is
// forgotten. It is forgotten too when it does not come back.
func TestRoute_ASilentAddressThatLeftIsTold(t *testing.T) {
	for name, comesBack := range map[string]bool{"it comes back": true, "it stays away": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ways := map[string]*freezing{"first:1": {PipeListener: testkit.NewPipeListener()}, "second:1": {PipeListener: testkit.NewPipeListener()}}
				first, messages := inMemory(t, ways["first:1"], "orders")
				second, others := inMemory(t, ways["second:1"], "orders")
				var elsewhere sync.WaitGroup
				handled := 0
				elsewhere.Go(func() { // ends with second
					for m := range others {
						handled++
						m.Ack()
					}
				})
				w := &watched{route: route.Route{Addresses: []string{"first:1"}}}
				manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{
					Acked: buffstreams.AckedConfig{ForgetAfter: 2 * time.Minute},
					Dial:  func(ctx context.Context, _, address string) (net.Conn, error) { return ways[address].dial(ctx) },
				})
				require.NoError(t, err)
				pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{ // the channels of calls that wait are the process's
					Manager: manager, Resolver: w, Confirm: buffstreams.ConfirmEnqueued,
				}, nil)
				require.NoError(t, err)
				knows := func() bool {
					return slices.ContainsFunc(manager.Stats().Addresses, func(a buffstreams.AddressStats) bool { return a.Address == "first:1" })
				}
				require.NoError(t, pub.Publish("orders", newMessages(10)...))
				one := <-messages
				time.Sleep(time.Second) // all are received
				ways["first:1"].freeze()
				w.set(route.Route{Addresses: []string{"second:1"}})
				time.Sleep(time.Minute)
				synctest.Wait()
				require.Equal(t, 10, handled)
				require.True(t, knows(), "it has still to be told")
				if comesBack {
					ways["first:1"].thaw()
					time.Sleep(30 * time.Second)
				} else {
					time.Sleep(2 * time.Minute)
				}
				require.False(t, knows())
				one.Ack()
				synctest.Wait()
				if comesBack {
					require.Empty(t, messages, "what was handled elsewhere")
				}
				require.NoError(t, pub.Close())
				require.NoError(t, manager.Close())
				_ = first.Close() // what it has is settled elsewhere
				require.NoError(t, second.Close())
				elsewhere.Wait()
			})
		})
	}
}
