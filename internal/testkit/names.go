package testkit

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// resolverDial is how net.DefaultResolver reaches its server in a process that Main runs; nil means as ever. A test
// cannot replace net.DefaultResolver itself: the dial of a test before it, which nothing waits for, may still read
// that.
var resolverDial atomic.Pointer[func(ctx context.Context, network, address string) (net.Conn, error)]

func installResolver() {
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if dial := resolverDial.Load(); dial != nil {
			return (*dial)(ctx, network, address)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
}

// Resolve makes this process reach its name server by dial, until the test ends. The package's TestMain must call Main.
func Resolve(t testing.TB, dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	t.Helper()
	old := resolverDial.Swap(&dial)
	t.Cleanup(func() { resolverDial.Store(old) })
}

// ServeNames makes this process resolve every name to the addresses, in that order, until the test ends. The package's
// TestMain must call Main.
func ServeNames(t testing.TB, addresses ...string) {
	t.Helper()
	ResolveBy(t, func() []string { return addresses })
}

// ResolveBy is ServeNames with the addresses of the moment.
func ResolveBy(t testing.TB, addresses func() []string) {
	t.Helper()
	Resolve(t, func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go answerNames(server, addresses) // ends when the resolver closes its end
		return client, nil
	})
}

func answerNames(conn net.Conn, addresses func() []string) {
	defer func() { _ = conn.Close() }()
	for {
		size := make([]byte, 2)
		if _, err := io.ReadFull(conn, size); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(size))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		reply := nameReply(query, addresses())
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

func nameReply(query []byte, addresses []string) []byte {
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5
	reply := slices.Clone(query[:end])
	reply[2], reply[3] = 0x81, 0x80
	clear(reply[6:12])
	for _, a := range addresses {
		ip, kind := netip.MustParseAddr(a), uint16(28)
		if ip.Is4() {
			kind = 1
		}
		if binary.BigEndian.Uint16(query[end-4:]) != kind {
			continue
		}
		reply[7]++
		reply = append(reply, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 0, 0, byte(ip.BitLen()/8))
		reply = append(reply, ip.AsSlice()...)
	}
	return reply
}

// ListenAt listens at one port of several addresses.
func ListenAt(t testing.TB, addresses ...string) (listeners []net.Listener, port string) {
	t.Helper()
	for {
		listeners, port = nil, "0"
		for _, a := range addresses {
			ln, err := net.Listen("tcp", net.JoinHostPort(a, port))
			if err != nil {
				break
			}
			t.Cleanup(func() { _ = ln.Close() })
			listeners = append(listeners, ln)
			_, port, err = net.SplitHostPort(ln.Addr().String())
			require.NoError(t, err)
		}
		if len(listeners) == len(addresses) {
			return listeners, port
		}
	}
}
