//go:build unix

package netio

import (
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
)

func TestReadWhenReady_EndsAsTheSocketDoes(t *testing.T) {
	for name, c := range map[string]struct {
		network, address string
		end              func(near, far net.Conn)
		want             error
	}{
		"the peer closes":    {"tcp", "127.0.0.1:0", func(_, far net.Conn) { _ = far.Close() }, io.EOF},
		"closed here":        {"tcp", "127.0.0.1:0", func(near, _ net.Conn) { _ = near.Close() }, net.ErrClosed},
		"a reset":            {"tcp", "127.0.0.1:0", reset, syscall.ECONNRESET},
		"a unix socket ends": {"unix", t.TempDir() + "/socket", func(_, far net.Conn) { _ = far.Close() }, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen(c.network, c.address)
			require.NoError(t, err)
			defer func() { _ = ln.Close() }()
			far, err := net.Dial(c.network, ln.Addr().String())
			require.NoError(t, err)
			defer func() { _ = far.Close() }()
			near, err := ln.Accept()
			require.NoError(t, err)
			defer func() { _ = near.Close() }()

			src := ReadWhenReady(near)
			require.Implements(t, (*framing.PatientSource)(nil), src)
			waits := whenItWaits(src.(*readinessReader))
			codec, err := framing.NewVarint(100)
			require.NoError(t, err)
			r := framing.NewReader(src, codec)
			next := func(meanwhile func()) (string, error) {
				done := make(chan struct{})
				go func() { // ends when the Reader has waited
					defer close(done)
					<-waits
					meanwhile()
				}()
				got, err := r.Next()
				<-done
				return string(got), err
			}
			_, err = next(func() { _ = near.SetReadDeadline(time.Unix(1, 0)) })
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, near.SetReadDeadline(time.Time{}))
			for _, parts := range [][]string{{"\x05first"}, {"\x06se", "cond"}} {
				got, err := next(func() {
					for _, part := range parts {
						_, _ = far.Write([]byte(part))
					}
				})
				require.NoError(t, err)
				assert.Equal(t, strings.Join(parts, "")[1:], got)
			}
			_, err = next(func() { c.end(near, far) })
			assert.ErrorIs(t, err, c.want)
		})
	}
}

// whenItWaits returns a channel that receives whenever there was nothing to read.
func whenItWaits(c *readinessReader) <-chan struct{} {
	waits := make(chan struct{}, 1)
	tryRead := c.tryRead
	c.tryRead = func(fd uintptr) bool {
		read := tryRead(fd)
		if !read {
			select {
			case waits <- struct{}{}:
			default:
			}
		}
		return read
	}
	return waits
}

func reset(_, far net.Conn) {
	_ = far.(*net.TCPConn).SetLinger(0)
	_ = far.Close()
}

func TestReadWhenReady_LeavesWrappedSocketsAlone(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	assert.Same(t, near, ReadWhenReady(near))
	tcp := wrapped{&net.TCPConn{}}
	assert.Equal(t, tcp, ReadWhenReady(tcp))
}

// wrapped is a socket of the user's, with methods of its own, which nothing may go past.
type wrapped struct{ *net.TCPConn }
