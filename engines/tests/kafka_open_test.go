package tests

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// overWhen is a context whose deadline has passed once over is closed.
type overWhen struct {
	context.Context
	over chan struct{}
}

func (c overWhen) Done() <-chan struct{} { return c.over }

func (c overWhen) Err() error {
	select {
	case <-c.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// accept serves each connection on a goroutine of its own until the test ends.
func accept(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var serving sync.WaitGroup
	serving.Go(func() { // ends with the listener
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { // ends with the connection, or the test
				defer func() { _ = conn.Close() }()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		serving.Wait()
	})
	return listener.Addr().String()
}

// Kafka's client goes from one broker to the next, and says at the end only that time is over, if the last of them is
// silent: Open says why the connection before has failed.
func TestOpenFaults_KafkaSaysWhyAConnectionFailed(t *testing.T) {
	secured, over := newCertificate(t).server(t), make(chan struct{})
	unknown := accept(t, func(conn net.Conn) { _ = tls.Server(conn, secured).Handshake() }) // the client ends it
	var once sync.Once
	silent := accept(t, func(net.Conn) {
		once.Do(func() { close(over) })
		<-t.Context().Done() // it ends before the cleanup
	})
	ctx := overWhen{t.Context(), over}
	began := time.Now()
	_, err := engines.Open(ctx, "kafka+tls://"+unknown+","+silent, drivers()...)
	require.ErrorIs(t, err, driver.ErrCertificate)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(began), 30*time.Second)
}
