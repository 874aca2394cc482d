package pool_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/pool"
)

// A Listener hands each message to a callback, and admits only whom it likes.
func ExampleListenTCP() {
	received := make(chan string, 1)
	listener, err := pool.ListenTCP(pool.ListenerConfig{
		Address: "127.0.0.1:0",
		Callback: func(payload []byte) error {
			received <- string(payload) // a copy: the bytes are valid until the callback returns
			return nil
		},
		Admit: func(_ context.Context, conn net.Conn) error {
			_, _, err := net.SplitHostPort(conn.RemoteAddr().String())
			return err
		},
		Listen: net.Listen,
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := listener.StartListeningAsync(); err != nil {
		log.Fatal(err)
	}
	writer, err := pool.DialTCP(pool.WriterConfig{Address: listener.Addr().String()})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := writer.Write([]byte("hello")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-received)
	fmt.Println(writer.Close(), listener.Close())
	// Output:
	// hello
	// <nil> <nil>
}

// A Writer reconnects as Retry says, and gives away what it could not send.
func ExampleDialTCP() {
	_, err := pool.DialTCP(pool.WriterConfig{
		Address: "127.0.0.1:1", // nothing listens there
		Dial:    (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext,
		Retry: &pool.RetryConfig{
			MaxAttempts: pool.RetryForever,
			BackOff:     func() backoff.BackOff { return backoff.NewConstantBackOff(time.Second) },
		},
		OnFailure: func(f pool.Failure) { log.Printf("%s: %q: %v", f.Address, f.Payload, f.Err) },
	})
	fmt.Println(err != nil)
	// Output: true
}

// A Manager has Writers and Listeners by address, as BuffStreams did.
func ExampleNewManager() {
	manager, err := pool.NewManager(pool.ManagerConfig{
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
		Listen: net.Listen,
	})
	if err != nil {
		log.Fatal(err)
	}
	received := make(chan string, 1)
	err = manager.StartListening(pool.ListenerConfig{
		Address: "127.0.0.1:0", Callback: func(payload []byte) error { received <- string(payload); return nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	address := manager.ListenAddress("127.0.0.1:0")
	if err := manager.Dial(pool.WriterConfig{Address: address.String()}); err != nil {
		log.Fatal(err)
	}
	if _, err := manager.Write(address.String(), []byte("hello")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-received)
	fmt.Println(manager.Close())
	// Output:
	// hello
	// <nil>
}
