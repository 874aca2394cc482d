package clients

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between a publisher and a subscriber, and cuts their connections at random bytes, in half of the cases with a
// reset, until it has made as many cuts as it may.
type proxy struct {
	ln     net.Listener
	target atomic.Value // string; empty: there is no one to connect to
	left   atomic.Int64 // cuts to be made
	group  sync.WaitGroup

	mu     sync.Mutex
	random *rand.Rand // guarded by mu
	conns  map[net.Conn]bool
	closed bool
}

func newProxy(t *testing.T, seed uint64, cuts int) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{ln: ln, random: rand.New(rand.NewPCG(seed, 1)), conns: map[net.Conn]bool{}}
	p.target.Store("")
	p.left.Store(int64(cuts))
	p.group.Go(p.accept) // ends with the listener, and is waited for in close
	t.Cleanup(p.close)
	return p
}

func (p *proxy) address() string { return p.ln.Addr().String() }

func (p *proxy) close() {
	_ = p.ln.Close()
	p.mu.Lock()
	p.closed = true
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.group.Wait()
}

func (p *proxy) track(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[conn] = true
	return !p.closed
}

// fate draws how many bytes a connection lets through, and whether it ends with a reset.
func (p *proxy) fate() (bytes int64, reset bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return 100 + p.random.Int64N(16_000), p.random.IntN(2) == 0
}

func (p *proxy) accept() {
	for {
		from, err := p.ln.Accept()
		if err != nil {
			return
		}
		target, _ := p.target.Load().(string)
		to, err := net.Dial("tcp", target)
		if err != nil {
			_ = from.Close()
			continue
		}
		if !p.track(from) || !p.track(to) {
			_ = from.Close()
			_ = to.Close()
			return
		}
		bytes, reset := p.fate()
		budget := new(atomic.Int64)
		budget.Store(bytes)
		end := sync.OnceFunc(func() { p.end(from, to, reset) })
		p.group.Go(func() { p.carry(to, from, budget, end) }) // both end with the connection
		p.group.Go(func() { p.carry(from, to, budget, end) })
	}
}

func (p *proxy) end(from, to net.Conn, reset bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range []net.Conn{from, to} {
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
		delete(p.conns, conn)
	}
}

// carry copies one direction until it ends, or the connection's budget is used up while there are cuts left.
func (p *proxy) carry(to, from net.Conn, budget *atomic.Int64, end func()) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if rest := budget.Add(-int64(n)); rest < 0 && p.left.Load() > 0 {
			if p.left.Add(-1) >= 0 {
				_, _ = to.Write(buf[:max(0, int64(n)+rest)])
				end()
				return
			}
		}
		if _, werr := to.Write(buf[:n]); werr != nil {
			end()
			return
		}
		if errors.Is(err, io.EOF) {
			if tcp, ok := to.(*net.TCPConn); ok {
				_ = tcp.CloseWrite() // a clean end is passed on as one
			}
			return
		}
		if err != nil {
			end()
			return
		}
	}
}
