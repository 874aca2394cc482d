package sender

import (
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// What comes in place of a greeting says little by itself: the error of a call that waits says what it can mean.
func TestSender_SaysWhyNothingGreets(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(conn net.Conn)
		is     error
		says   string
	}{
		"ends":            {func(conn net.Conn) { _ = conn.Close() }, io.EOF, "without a greeting: does only one side use TLS?"},
		"ends in a frame": {func(conn net.Conn) { _, _ = conn.Write([]byte{0, 0}); _ = conn.Close() }, io.ErrUnexpectedEOF, "without a greeting"},
		"silent":          {func(net.Conn) {}, os.ErrDeadlineExceeded, "does not answer the greeting"},
		"HTTP":            {func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request") }, nil, "does something else listen there?"},
		"short frames":    {func(conn net.Conn) { _, _ = conn.Write(make([]byte, 64)) }, nil, "does something else listen there?"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := testkit.NewNetwork()
				s := start(t, Config{
					Dial: network.Dial, HandshakeTimeout: time.Second,
					Backoff: func() backoff.BackOff { return backoff.NewConstantBackOff(time.Hour) }, // there is one attempt
				})
				_, err := publish(t, s)
				require.NoError(t, err)
				connected := accept(network)
				synctest.Wait() // it has written its greeting
				c.answer(connected)
				time.Sleep(1010 * time.Millisecond) // of the bubble: the handshake's time is over
				synctest.Wait()
				s.mu.Lock()
				err = s.unreachable // of calls whose time is over
				s.mu.Unlock()
				require.ErrorIs(t, err, ErrTimeout)
				require.ErrorContains(t, err, c.says)
				if c.is != nil {
					require.ErrorIs(t, err, c.is)
				}
				require.NotContains(t, err.Error(), "raise the maximum length", "that would not help")
				s.Close()
				_ = connected.Close() // it may be already
			})
		})
	}
}
