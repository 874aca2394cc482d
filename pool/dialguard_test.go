package pool

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

func prefixes(all ...string) (out []netip.Prefix) {
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestDialAllowJudgesAddresses(t *testing.T) {
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
		err := c.allow.allows(c.network, c.address)
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

func TestDialAllowIsValidated(t *testing.T) {
	_, err := NewManager(ManagerConfig{DialAllow: &DialAllow{Prefixes: []netip.Prefix{{}}}})
	require.ErrorContains(t, err, "ManagerConfig.DialAllow")
	_, err = NewManager(ManagerConfig{DialAllow: &DialAllow{UnixDirs: []string{"run"}}})
	require.ErrorContains(t, err, "ManagerConfig.DialAllow")
}

// publishOne publishes one message over a link and waits for it to be received.
func publishOne(t *testing.T, l *Link, payload string) (enqueued int, err error) {
	t.Helper()
	return l.Publish(context.Background(), "a", batchOf(t, payload), session.Received, 10*time.Second)
}

func linkTo(t *testing.T, m *Manager, target Target) *Link {
	t.Helper()
	l, err := m.Link(target)
	require.NoError(t, err)
	return l
}

func TestALiteralAddressThatIsDeniedTakesNoMessages(t *testing.T) {
	m := newTestManager(t, ManagerConfig{DialAllow: &DialAllow{Prefixes: prefixes("10.0.0.0/8")}})
	for _, target := range []Target{{Network: "tcp", Address: "127.0.0.1:1"}, {Network: "unix", Address: "/run/x.sock"}} {
		_, err := m.Link(target)
		require.ErrorIs(t, err, ErrDialDenied)
	}
	require.ErrorIs(t, m.Dial(WriterConfig{Address: "127.0.0.1:1"}), ErrDialDenied)
}

func TestTheConnectionOfACustomDialIsJudged(t *testing.T) {
	peer := newPeerServer(t, "127.0.0.1:0")
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) { // goes elsewhere than it was asked to
		return (&net.Dialer{}).DialContext(ctx, network, peer.address())
	}
	m := newTestManager(t, ManagerConfig{Dial: dial, DialAllow: &DialAllow{Prefixes: prefixes("10.0.0.0/8")}})
	_, err := publishOne(t, linkTo(t, m, Target{Network: "tcp", Address: "10.0.0.1:1"}), "secret")
	require.ErrorIs(t, err, ErrDialDenied)
	got, _ := io.ReadAll(peer.accept(t))
	require.Empty(t, got, "a byte was sent to an address that is denied")
	for _, cfg := range []WriterConfig{{Address: "10.0.0.1:1"}, {Address: "10.0.0.1:1", Dial: dial}} {
		require.ErrorIs(t, m.Dial(cfg), ErrDialDenied)
	}

	net := newPipes() // whose connections have no address
	m = newTestManager(t, ManagerConfig{Dial: net.dial, DialAllow: &DialAllow{Prefixes: prefixes("0.0.0.0/0")}})
	require.ErrorIs(t, m.Dial(WriterConfig{Address: "10.0.0.1:1"}), ErrDialDenied)
}

// nameServer answers every question for an A record with what answer says, over a pipe.
func nameServer(answer func() netip.Addr) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() { // ends when the resolver closes its end
			defer func() { _ = server.Close() }()
			for {
				size := make([]byte, 2)
				if _, err := io.ReadFull(server, size); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(size))
				if _, err := io.ReadFull(server, query); err != nil {
					return
				}
				reply := nameReply(query, answer)
				if _, err := server.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
					return
				}
			}
		}()
		return client, nil
	}
}

func nameReply(query []byte, answer func() netip.Addr) []byte {
	end := 12
	for query[end] != 0 {
		end += 1 + int(query[end])
	}
	end += 5
	reply := append([]byte(nil), query[:end]...)
	reply[2], reply[3] = 0x81, 0x80
	for i := 6; i < 12; i++ {
		reply[i] = 0
	}
	if binary.BigEndian.Uint16(query[end-4:]) == 1 {
		reply[7] = 1
		ip := answer().As4()
		reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		reply = append(reply, ip[:]...)
	}
	return reply
}

// twins listen at the same port of two addresses.
func twins(t *testing.T) (second, first peerServer, port string) {
	for {
		second = newPeerServer(t, "127.0.0.2:0")
		_, port, err := net.SplitHostPort(second.address())
		require.NoError(t, err)
		if ln, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			t.Cleanup(func() { _ = ln.Close() })
			return second, peerServer{ln}, port
		}
	}
}

// A name that first leads to an allowed address and later to another is the attack that a check of names would miss.
func TestANameThatIsReboundIsDeniedWhenItIsConnectedTo(t *testing.T) {
	var rebound atomic.Bool
	old := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: nameServer(func() netip.Addr {
		if rebound.Load() {
			return netip.MustParseAddr("127.0.0.2")
		}
		return netip.MustParseAddr("127.0.0.1")
	})}
	t.Cleanup(func() { net.DefaultResolver = old })

	inside, allowed, port := twins(t) // the attacker is after the first
	m := newTestManager(t, ManagerConfig{DialAllow: &DialAllow{Prefixes: prefixes("127.0.0.1/32")}})
	address := "orders.example:" + port
	require.NoError(t, m.Dial(WriterConfig{Address: address}))
	allowed.accept(t)
	require.NoError(t, m.CloseWriter(address))

	rebound.Store(true)
	require.ErrorIs(t, m.Dial(WriterConfig{Address: address}), ErrDialDenied)
	l := linkTo(t, m, Target{Network: "tcp", Address: address})
	enqueued, err := publishOne(t, l, "x")
	var denied *DialDeniedError
	require.True(t, errors.As(err, &denied), "%v", err)
	require.Equal(t, inside.address(), denied.Address)
	require.Equal(t, 1, enqueued, "what was taken stays")
	enqueued, err = publishOne(t, l, "y")
	require.ErrorIs(t, err, ErrDialDenied)
	require.Zero(t, enqueued, "and trying again piles up nothing")
	require.Equal(t, 1, l.Pending())
	require.NoError(t, inside.ln.(*net.TCPListener).SetDeadline(time.Now()))
	_, err = inside.ln.Accept()
	var timeout net.Error
	require.True(t, errors.As(err, &timeout) && timeout.Timeout(), "it was connected to: %v", err)
}
