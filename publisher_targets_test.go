package buffstreams

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// TestRoutedStream_NeverFromTLSToPlaintext, but to a Unix socket, where no others read it.
func TestRoutedStream_NeverFromTLSToPlaintext(t *testing.T) {
	plain, secure := &address{target: netio.Target{Network: "tcp"}}, &address{target: netio.Target{Network: "tcp", TLS: true}}
	socket := &address{target: netio.Target{Network: "unix"}}
	for _, c := range []struct {
		from, to *address
		may      bool
	}{{plain, plain, true}, {plain, secure, true}, {secure, secure, true}, {secure, socket, true}, {secure, plain, false}} {
		f := &routedStream{}
		f.addr.Store(c.from)
		require.Equal(t, c.may, f.mayMoveTo(c.to), "%v to %v", c.from.target, c.to.target)
	}
}
