package tests

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// slowLink returns an address from which bytes go on to another at a rate in bytes a second.
func slowLink(t *testing.T, to string, rate int) string {
	t.Helper()
	small := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { // else the kernel takes all of it at once
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 32<<10)
		})
	}}
	ln, err := small.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() { // ends with ln
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			go carrySlowly(near, far, 0) // ends with either connection
			go carrySlowly(far, near, rate)
		}
	}()
	return ln.Addr().String()
}

func carrySlowly(to, from net.Conn, rate int) {
	defer func() { _ = to.Close() }()
	buf := make([]byte, 8<<10)
	for {
		n, err := from.Read(buf)
		if rate > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(rate))
		}
		if _, writeErr := to.Write(buf[:n]); err != nil || writeErr != nil {
			_ = from.Close()
			return
		}
	}
}

// A message takes many times as long on its way as every time-out is long: no byte of it is late.
func TestDeadline_IsAboutProgress(t *testing.T) {
	t.Parallel()
	server, client := testkit.SelfSignedTLS(t)
	for name, secure := range map[string]bool{"plaintext": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			acked := buffstreams.AckedConfig{
				MaxMessageSize: 5 << 20, WriteTimeout: 4500 * time.Millisecond, PingAfter: 1800 * time.Millisecond,
				DeadAfter: 6 * time.Second, // a busy machine may do nothing for seconds
			}
			prefix := ""
			if secure {
				acked.ServerTLS, acked.ClientTLS, prefix = server, client, "tls://"
			}
			h := newHouse(t, buffstreams.ManagerConfig{Acked: acked})
			messages := subscribe(t, h.newSubscriber(t, nil), prefix+h.topic("a"))
			dials := 0
			pub := outsider(t, func(c *buffstreams.PublisherConfig) {
				c.PublishTimeout = 2 * time.Minute
				c.ManagerConfig = buffstreams.ManagerConfig{Acked: acked, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
					dials++
					conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
					if tcp, ok := conn.(*net.TCPConn); ok {
						_ = tcp.SetWriteBuffer(64 << 10)
					}
					return conn, err
				}}
			})
			link := slowLink(t, h.address, 200<<10)
			begin := time.Now()
			require.NoError(t, pub.Publish(prefix+link+"/a", message.NewMessage("large", make([]byte, 4<<20))))
			require.Greater(t, time.Since(begin), 3*acked.DeadAfter, "the link is the subject")
			receive(t, messages).Ack()
			require.Equal(t, 1, dials)
		})
	}
}
