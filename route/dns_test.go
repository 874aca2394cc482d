package route

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// record is one of what a DNS server answers with.
type record struct {
	kind uint16
	data []byte
}

const (
	typeA, typeAAAA, typeSRV = 1, 28, 33
)

func ip(address string) record {
	a := netip.MustParseAddr(address)
	kind := uint16(typeAAAA)
	if a.Is4() {
		kind = typeA
	}
	return record{kind, a.AsSlice()}
}

func srv(priority, weight, port uint16, target string) record {
	data := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, priority), weight), port)
	for label := range strings.SplitSeq(strings.TrimSuffix(target, "."), ".") {
		if label != "" {
			data = append(append(data, byte(len(label))), label...)
		}
	}
	return record{typeSRV, append(data, 0)}
}

// dnsWith returns a resolver of package net whose server has these records, for any name.
func dnsWith(records ...record) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		here, there := net.Pipe()
		go serveDNS(there, records) // ends when package net closes the other end
		return here, nil
	}}
}

// serveDNS answers the queries of a stream, each with the records of its type.
func serveDNS(conn net.Conn, records []record) {
	defer func() { _ = conn.Close() }()
	for {
		var length [2]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		query := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		end := 12 // of the question: behind a name of labels, a type and a class
		for query[end] != 0 {
			end += 1 + int(query[end])
		}
		end += 5
		kind := binary.BigEndian.Uint16(query[end-4:])
		reply := append(query[:2:2], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0) // an answer to one question
		reply = append(reply, query[12:end]...)
		for _, r := range records {
			if r.kind == kind {
				binary.BigEndian.PutUint16(reply[6:], binary.BigEndian.Uint16(reply[6:])+1)
				reply = append(reply, 0xc0, 12, 0, byte(kind), 0, 1, 0, 0, 0, 1, 0, byte(len(r.data))) // the same name, for a second
				reply = append(reply, r.data...)
			}
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

// said is what a route says besides its addresses.
var said = Route{Policy: Hash, HashKey: "k", Name: "n", Addresses: []string{"not used"}}

func requireSaid(t *testing.T, got Route) {
	t.Helper()
	require.Equal(t, []any{said.Policy, said.HashKey, said.Name}, []any{got.Policy, got.HashKey, got.Name})
	require.NoError(t, got.Validate())
}

// TestDNS_AnIPAddressIsOne, though two records have it, one of them as an IPv6 address.
func TestDNS_AnIPAddressIsOne(t *testing.T) {
	d := &DNS{Address: "orders.test:5031", Route: said, Resolver: dnsWith(ip("10.0.0.1"), ip("10.0.0.1"), ip("::ffff:10.0.0.1"), ip("2001:db8::1"))}
	got, err := d.Resolve(t.Context(), "orders")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"10.0.0.1:5031", "[2001:db8::1]:5031"}, got.Addresses)
	require.Equal(t, map[string]Attributes{"10.0.0.1:5031": {}, "[2001:db8::1]:5031": {}}, got.Attributes)
	requireSaid(t, got)
}

// TestDNS_CertificatesNameTheHost, not the IP addresses, where there is TLS.
func TestDNS_CertificatesNameTheHost(t *testing.T) {
	got, err := (&DNS{Address: "tls://orders.test:5031", Resolver: dnsWith(ip("10.0.0.1"))}).Resolve(t.Context(), "orders")
	require.NoError(t, err)
	require.Equal(t, []string{"tls://10.0.0.1:5031"}, got.Addresses)
	require.Equal(t, map[string]Attributes{"tls://10.0.0.1:5031": {ServerName: "orders.test"}}, got.Attributes)
}

// TestDNS_OfAnIPAddress needs no server: package net knows it.
func TestDNS_OfAnIPAddress(t *testing.T) {
	for _, address := range []string{"127.0.0.1:5031", "tcp://127.0.0.1:5031"} {
		got, err := (&DNS{Address: address}).Resolve(t.Context(), "orders")
		require.NoError(t, err)
		require.Equal(t, []string{"127.0.0.1:5031"}, got.Addresses)
	}
	for _, address := range []string{"127.0.0.1", "udp://127.0.0.1:5031", "unix:///orders", ""} {
		_, err := (&DNS{Address: address}).Resolve(t.Context(), "orders")
		require.ErrorContains(t, err, "DNS.Address", address)
	}
}

// TestSRV_GoesOnBehindWhatIsNoTarget: a record that says that there is no service, and one whose target is no name.
func TestSRV_GoesOnBehindWhatIsNoTarget(t *testing.T) {
	s := &SRV{Service: "orders", Proto: "tcp", Name: "test", Route: said, Resolver: dnsWith(
		srv(0, 0, 1, "."), srv(1, 0, 2, "no name"), srv(2, 7, 5031, "b.test."), srv(3, 0, 5032, "a.test."))}
	got, err := s.Resolve(t.Context(), "orders")
	require.NoError(t, err)
	require.Equal(t, []string{"a.test:5032", "b.test:5031"}, got.Addresses)
	require.Equal(t, map[string]Attributes{"a.test:5032": {Priority: 3}, "b.test:5031": {Priority: 2, Weight: 7}}, got.Attributes)
	requireSaid(t, got)
	for name, records := range map[string][]record{"no service": {srv(0, 0, 1, ".")}, "no name": {srv(0, 0, 1, "no name")}, "no record": nil} {
		_, err = (&SRV{Name: "orders.test", Resolver: dnsWith(records...)}).Resolve(t.Context(), "orders")
		require.Error(t, err, name)
	}
}
