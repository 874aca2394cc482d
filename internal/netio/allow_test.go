package netio

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func prefixes(all ...string) (out []netip.Prefix) {
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestDialAllow_Allows(t *testing.T) {
	everything := prefixes("0.0.0.0/0", "::/0")
	for _, c := range []struct {
		name    string
		allow   DialAllow
		network string
		address string
		ok      bool
	}{
		{"the zero value allows nothing", DialAllow{}, "tcp", "127.0.0.1:1", false},
		{"inside", DialAllow{Prefixes: prefixes("10.1.0.0/16")}, "tcp4", "10.1.2.3:1", true},
		{"outside", DialAllow{Prefixes: prefixes("10.1.0.0/16")}, "tcp4", "10.2.0.1:1", false},
		{"IPv4 in IPv6, inside", DialAllow{Prefixes: prefixes("10.1.0.0/16")}, "tcp6", "[::ffff:10.1.2.3]:1", true},
		{"IPv4 in IPv6, outside", DialAllow{Prefixes: prefixes("10.1.0.0/16", "::/0")}, "tcp6", "[::ffff:10.2.0.1]:1", false},
		{"a prefix written in IPv6", DialAllow{Prefixes: prefixes("::ffff:10.1.0.0/112")}, "tcp", "10.1.2.3:1", true},
		{"unspecified is loopback, denied", DialAllow{Prefixes: prefixes("0.0.0.0/8")}, "tcp", "0.0.0.0:1", false},
		{"unspecified is loopback, allowed", DialAllow{Prefixes: prefixes("127.0.0.0/8")}, "tcp", "0.0.0.0:1", true},
		{"unspecified IPv6 is loopback", DialAllow{Prefixes: prefixes("::/128")}, "tcp", "[::]:1", false},
		{"loopback IPv6", DialAllow{Prefixes: prefixes("::1/128")}, "tcp", "[::1]:1", true},
		{"link-local under everything", DialAllow{Prefixes: everything}, "tcp", "169.254.10.1:1", false},
		{"metadata under everything", DialAllow{Prefixes: everything}, "tcp", "169.254.169.254:80", false},
		{"metadata in IPv6 form", DialAllow{Prefixes: everything}, "tcp", "[::ffff:169.254.169.254]:80", false},
		{"metadata by NAT64", DialAllow{Prefixes: everything}, "tcp", "[64:ff9b::a9fe:a9fe]:80", false},
		{"metadata by 6to4", DialAllow{Prefixes: everything}, "tcp", "[2002:a9fe:a9fe::1]:80", false},
		{"others by NAT64", DialAllow{Prefixes: everything}, "tcp", "[64:ff9b::8.8.8.8]:80", true},
		{"metadata, asked for", DialAllow{Prefixes: prefixes("169.254.169.254/32")}, "tcp", "169.254.169.254:80", true},
		{"link-local, its range asked for", DialAllow{Prefixes: prefixes("169.254.0.0/16")}, "tcp", "169.254.10.1:1", true},
		{"IPv6 link-local with a zone", DialAllow{Prefixes: everything}, "tcp", "[fe80::1%eth0]:1", false},
		{"IPv6 link-local, asked for", DialAllow{Prefixes: prefixes("fe80::/64")}, "tcp", "[fe80::1%eth0]:1", true},
		{"IPv6 metadata under unique local", DialAllow{Prefixes: prefixes("fd00::/8")}, "tcp", "[fd00:ec2::254]:80", false},
		{"unique local beside it", DialAllow{Prefixes: prefixes("fd00::/8")}, "tcp", "[fd00:ec3::254]:80", true},
		{"a port", DialAllow{Prefixes: everything, Ports: []uint16{5031}}, "tcp", "10.0.0.1:5031", true},
		{"another port", DialAllow{Prefixes: everything, Ports: []uint16{5031}}, "tcp", "10.0.0.1:6379", false},
		{"a name was not looked up", DialAllow{Prefixes: everything}, "tcp", "localhost:1", false},
		{"unix without a directory", DialAllow{Prefixes: everything}, "unix", "/run/app.sock", false},
		{"unix inside", DialAllow{UnixDirs: []string{"/run/app"}}, "unix", "/run/app/x/s.sock", true},
		{"unix out by dots", DialAllow{UnixDirs: []string{"/run/app"}}, "unix", "/run/app/../docker.sock", false},
		{"unix beside", DialAllow{UnixDirs: []string{"/run/app"}}, "unix", "/run/app2/s.sock", false},
		{"unix abstract", DialAllow{UnixDirs: []string{"/"}}, "unix", "@app", false},
		{"what is no address", DialAllow{Prefixes: everything, UnixDirs: []string{"/"}}, "pipe", "pipe", false},
	} {
		err := c.allow.Allows(c.network, c.address)
		if c.ok {
			require.NoError(t, err, c.name)
			continue
		}
		require.ErrorIs(t, err, ErrDialDenied, c.name)
		var denied *DialDeniedError
		require.ErrorAs(t, err, &denied, c.name)
		require.Equal(t, c.address, denied.Address)
	}
}

// fakeConn is a connection that says where it leads to.
type fakeConn struct {
	net.Conn
	remote net.Addr
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.remote }
func (c *fakeConn) Close() error         { c.closed = true; return nil }

// The user's own dial can connect elsewhere than it was asked to: what it returns is judged, and closed if it is
// denied.
func TestDialAllow_GuardsACustomDial(t *testing.T) {
	allow := DialAllow{Prefixes: prefixes("10.0.0.0/8")}
	for _, c := range []struct {
		name   string
		remote net.Addr
		ok     bool
	}{
		{"elsewhere", &net.TCPAddr{IP: net.IPv4(169, 254, 169, 254), Port: 80}, false},
		{"without an address", nil, false},
		{"an address that cannot be judged", &net.UnixAddr{Name: "pipe", Net: "pipe"}, false},
		{"allowed", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}, true},
	} {
		made := &fakeConn{remote: c.remote}
		dial := allow.Guard(func(context.Context, string, string) (net.Conn, error) { return made, nil })
		got, err := dial(context.Background(), "tcp", "10.0.0.1:80")
		require.Equal(t, !c.ok, made.closed, c.name)
		if c.ok {
			require.NoError(t, err, c.name)
			require.Same(t, made, got, c.name)
			continue
		}
		require.ErrorIs(t, err, ErrDialDenied, c.name)
		require.Nil(t, got, c.name)
	}
}
