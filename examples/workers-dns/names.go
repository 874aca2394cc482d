package main

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
)

// names is a name server that answers every question for IPv4 addresses alike.
type names struct {
	conn net.PacketConn

	mu        sync.Mutex
	addresses []netip.Addr
}

func newNames() *names {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(err)
	n := &names{conn: conn}
	go n.serve()
	return n
}

// set decides what is answered from now on.
func (n *names) set(addresses ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.addresses = nil
	for _, a := range addresses {
		n.addresses = append(n.addresses, netip.MustParseAddr(a))
	}
}

// resolver asks this server.
func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", n.conn.LocalAddr().String())
	}}
}

func (n *names) serve() {
	query := make([]byte, 512)
	for {
		length, from, err := n.conn.ReadFrom(query)
		if err != nil {
			return
		}
		_, _ = n.conn.WriteTo(n.answer(query[:length]), from)
	}
}

// answer makes a response (RFC 1035, section 4) of a query with one question.
func (n *names) answer(query []byte) []byte {
	const header, typeA = 12, 1
	end := header
	for query[end] != 0 { // the labels of the name
		end += 1 + int(query[end])
	}
	end += 1 + 4 // the root, type and class
	answer := append([]byte{}, query[:end]...)
	answer[2], answer[3] = 0x81, 0x80 // a response, without error
	clear(answer[6:header])
	if binary.BigEndian.Uint16(query[end-4:]) != typeA {
		return answer
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.addresses {
		answer[7]++
		answer = append(answer, 0xc0, header, 0, typeA, 0, 1, 0, 0, 0, 0, 0, 4)
		answer = append(answer, a.AsSlice()...)
	}
	return answer
}
