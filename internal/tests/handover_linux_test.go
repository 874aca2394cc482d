package tests

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// reusePort listens where others of this machine do too: the kernel spreads connections over them.
func reusePort(network, address string) (net.Listener, error) {
	cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if controlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}); controlErr != nil {
			return controlErr
		}
		return err
	}}
	return cfg.Listen(context.Background(), network, address)
}

// passedSocket returns a Listen for a socket that another process has opened, as systemd passes it in descriptor 3.
func passedSocket(file *os.File) func(network, address string) (net.Listener, error) {
	return func(string, string) (net.Listener, error) { return net.FileListener(file) }
}

// TestHandover_ANewProcessAtTheSameAddress takes over from one that ends, while messages are published: none is lost or comes
// twice, and no call waits for the one that ends.
func TestHandover_ANewProcessAtTheSameAddress(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0") // systemd's
	require.NoError(t, err)
	defer func() { _ = socket.Close() }()
	file, err := socket.(*net.TCPListener).File()
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	for name, c := range map[string]struct {
		listen  func(network, address string) (net.Listener, error)
		address string
	}{
		"SO_REUSEPORT":  {reusePort, freeAddress(t)},
		"passed socket": {passedSocket(file), socket.Addr().String()},
	} {
		t.Run(name, func(t *testing.T) {
			var handled atomic.Int64
			start := func() *buffstreams.Subscriber {
				sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
					ConsumerGroup: "g", MaxInFlight: 64, ManagerConfig: buffstreams.ManagerConfig{Listen: c.listen},
				}, nil)
				require.NoError(t, err)
				messages := subscribe(t, sub, c.address+"/orders")
				go func() { // ends with the subscription
					for m := range messages {
						handled.Add(1)
						m.Ack()
					}
				}()
				return sub
			}
			old := start()
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
			require.NoError(t, err)
			const rounds = 300
			var next *buffstreams.Subscriber
			for i := range rounds {
				began := time.Now()
				require.NoError(t, pub.Publish(c.address+"/orders", newMessages(10)...))
				require.Less(t, time.Since(began), 15*time.Second)
				if i == rounds/2 {
					next = start()
					require.NoError(t, old.Close())
				}
			}
			require.NoError(t, pub.Drain(t.Context()))
			require.NoError(t, pub.Close())
			require.NoError(t, next.Close())
			require.EqualValues(t, 10*rounds, handled.Load())
		})
	}
}
