//go:build unix

package pool

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
)

func TestAPatientConnReadsAsTheSocketDoes(t *testing.T) {
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

			src := patient(near)
			require.Implements(t, (*framing.PatientSource)(nil), src)
			codec, err := framing.NewVarint(100)
			require.NoError(t, err)
			r := framing.NewReader(src, codec)
			require.NoError(t, near.SetReadDeadline(time.Now().Add(10*time.Millisecond)))
			_, err = r.Next()
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			require.NoError(t, near.SetReadDeadline(time.Time{}))

			go func() { // ends when all is written
				for _, part := range []string{"\x05fi", "rst\x06se", "cond"} {
					time.Sleep(10 * time.Millisecond)
					_, _ = far.Write([]byte(part))
				}
			}()
			for _, want := range []string{"first", "second"} {
				got, err := r.Next()
				require.NoError(t, err)
				assert.Equal(t, want, string(got))
			}
			time.AfterFunc(10*time.Millisecond, func() { c.end(near, far) })
			_, err = r.Next()
			assert.ErrorIs(t, err, c.want)
		})
	}
}

func reset(_, far net.Conn) {
	_ = far.(*net.TCPConn).SetLinger(0)
	_ = far.Close()
}

func TestOnlyABareSocketIsReadPatiently(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _, _ = near.Close(), far.Close() }()
	assert.Same(t, near, patient(near))
	tcp := wrapped{&net.TCPConn{}}
	assert.Equal(t, tcp, patient(tcp))
}
