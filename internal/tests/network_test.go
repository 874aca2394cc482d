package tests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cutCommand makes the test binary cut a network and wait until it is restored: network-cut CONTROL-ADDRESS.
const cutCommand = "network-cut"

func cutNetwork(control string) int {
	conn, err := net.Dial("tcp", control)
	if err == nil {
		_, err = io.Copy(io.Discard, conn) // ends when the network is restored
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// network stands between both ends of a test. Every byte takes latency to cross it, and it can be cut: its connections
// are reset and new ones refused until it is restored.
type network struct {
	latency, outage time.Duration
	control         net.Listener
	wg              sync.WaitGroup

	mu    sync.Mutex
	down  bool
	conns map[net.Conn]struct{}
}

func newNetwork(t testing.TB, latency, outage time.Duration) *network {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &network{latency: latency, outage: outage, control: ln, conns: map[net.Conn]struct{}{}}
	n.wg.Go(n.serveControl) // ends when the control socket is closed
	t.Cleanup(func() {
		_ = ln.Close()
		n.cut()
		n.wg.Wait()
	})
	return n
}

// command is a RestartServiceCommand.
func (n *network) command() []string {
	return []string{os.Args[0], cutCommand, n.control.Addr().String()}
}

func (n *network) serveControl() {
	for {
		conn, err := n.control.Accept()
		if err != nil {
			return
		}
		n.cut()
		time.Sleep(n.outage)
		n.restore()
		_ = conn.Close()
	}
}

func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = true
	for c := range n.conns {
		_ = c.(*net.TCPConn).SetLinger(0) // a reset: what is on its way is lost
		_ = c.Close()
	}
	clear(n.conns)
}

func (n *network) restore() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = false
}

// dial is a Manager's Dial: it connects through the network.
func (n *network) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	far, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, far.Close())
	}
	defer func() { _ = ln.Close() }()
	near, err := d.DialContext(ctx, "tcp", ln.Addr().String())
	if err != nil { // such as the end of ctx, in between
		return nil, errors.Join(err, far.Close())
	}
	middle, err := ln.Accept()
	if err != nil {
		return nil, errors.Join(err, near.Close(), far.Close())
	}
	if !n.join(far, middle) {
		_, _, _ = far.Close(), middle.Close(), near.Close()
		return nil, fmt.Errorf("the network is down")
	}
	return near, nil
}

func (n *network) join(a, b net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down {
		return false
	}
	n.conns[a], n.conns[b] = struct{}{}, struct{}{}
	n.wg.Go(func() { n.carry(a, b) }) // end when either side is closed, or the network cut
	n.wg.Go(func() { n.carry(b, a) })
	return true
}

// carry moves bytes from one side to the other, each after the latency.
func (n *network) carry(to, from net.Conn) {
	type packet struct {
		due  time.Time
		data []byte
	}
	packets := make(chan packet, 1024)
	n.wg.Go(func() { // ends when packets is closed
		for p := range packets {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				_ = from.Close()
			}
		}
		_ = to.Close()
	})
	defer close(packets)
	for {
		buf := make([]byte, 32<<10)
		k, err := from.Read(buf)
		if k > 0 {
			packets <- packet{time.Now().Add(n.latency), buf[:k]}
		}
		if err != nil {
			return
		}
	}
}
