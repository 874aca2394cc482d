package testkit

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// hosts counts the hosts that Host has given.
var hosts atomic.Int64

// Host is a loopback address of the caller's own, where all of 127.0.0.0/8 is this machine; else it is 127.0.0.1. No
// listener and no connection of another test gets a port there that was free, or is free again. One who dials such a
// port never meets itself.
func Host() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	pid := int64(os.Getpid())
	return fmt.Sprintf("127.%d.%d.%d", 1+pid/250%250, 1+pid%250, 1+hosts.Add(1)%250)
}

// FreeAddress is a host:port of this machine where nothing listens, for a listener that comes later or never.
func FreeAddress(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", Host()+":0")
	require.NoError(t, err)
	defer func() { require.NoError(t, ln.Close()) }()
	return ln.Addr().String()
}
