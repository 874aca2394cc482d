package chaos

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// direction is which way bytes go through a relay.
type direction int

const (
	up   direction = iota // from the publisher
	down                  // to the publisher
)

// damage is what happens once, to bytes of one direction that are on their way.
type damage int

const (
	none     damage = iota
	flipBit         // one bit of them arrives wrong
	truncate        // only some of them arrive, then the connection is reset
	hangUp          // all of them arrive, then the connection is closed
)

// relay carries connections to a listener, and does to them what it is told. Like a real network it never lets a
// connection go on from which bytes are missing: what was swallowed once stays silent, without a FIN, until both ends
// have given up on their own.
//
// mu guards what is told; goroutines that wait for a change of it wait for changed.
type relay struct {
	upstream string
	ln       net.Listener
	wg       sync.WaitGroup
	accepted atomic.Int64

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every change
	pipes   map[*pipe]struct{}
	refuse  bool
	swallow [2]bool
	stall   [2]bool
	pending [2]damage
	skip    [2]int // reads before it
	random  *rand.Rand
	closed  bool
}

// pipe is one connection through a relay. lost and hurt are guarded by the relay's mu.
type pipe struct {
	relay *relay
	ends  [2]*net.TCPConn // where bytes of a direction come from
	lost  [2]bool         // bytes of a direction were swallowed
	hurt  time.Time       // when bytes were first swallowed or damaged: an end has to notice
}

func newRelay(t testing.TB, upstream string, seed uint64) *relay {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	r := &relay{
		upstream: upstream, ln: ln, changed: make(chan struct{}), pipes: map[*pipe]struct{}{},
		random: rand.New(rand.NewPCG(seed, 0)),
	}
	r.wg.Go(r.accept) // ends when the socket is closed
	return r
}

func (r *relay) address() string { return r.ln.Addr().String() }

// close ends everything.
func (r *relay) close() {
	_ = r.ln.Close()
	r.tell(func() { r.closed = true })
	r.cut(true)
	r.wg.Wait()
}

// tell changes what happens from now on.
func (r *relay) tell(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.changed)
	r.changed = make(chan struct{})
}

// strike orders damage to the bytes of a direction, after some reads.
func (r *relay) strike(d direction, what damage, skip int) {
	r.tell(func() { r.pending[d], r.skip[d] = what, skip })
}

// heal ends every trouble. What has lost bytes stays lost.
func (r *relay) heal() {
	r.tell(func() {
		r.refuse, r.swallow, r.stall, r.pending = false, [2]bool{}, [2]bool{}, [2]damage{}
	})
}

// cut ends all connections whose ends can still hear of it.
func (r *relay) cut(reset bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pipes {
		if r.closed || p.lost == [2]bool{} {
			p.shut(reset)
		}
	}
}

// struck waits until the damage that was ordered has been done, or for a while. It says whether it was done.
func (r *relay) struck(d direction, wait time.Duration) bool {
	deadline := time.After(wait)
	for {
		r.mu.Lock()
		done, changed := r.pending[d] == none, r.changed
		r.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-changed:
		case <-deadline:
			return false
		}
	}
}

// doomed is how many connections are there that lost bytes, or had them damaged, before a time.
func (r *relay) doomed(before time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.pipes {
		if !p.hurt.IsZero() && p.hurt.Before(before) {
			n++
		}
	}
	return n
}

func (r *relay) accept() {
	for {
		near, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.accepted.Add(1)
		far, err := net.Dial("tcp", r.upstream)
		if err != nil {
			_ = near.Close()
			continue
		}
		r.join(&pipe{relay: r, ends: [2]*net.TCPConn{up: near.(*net.TCPConn), down: far.(*net.TCPConn)}})
	}
}

func (r *relay) join(p *pipe) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse || r.closed {
		p.shut(true)
		return
	}
	r.pipes[p] = struct{}{}
	var both sync.WaitGroup
	for _, d := range []direction{up, down} {
		both.Add(1)
		r.wg.Go(func() { // ends when its end of the connection is closed
			defer both.Done()
			p.carry(d)
		})
	}
	r.wg.Go(func() { // ends with the two
		both.Wait()
		p.shut(false)
		r.mu.Lock()
		delete(r.pipes, p)
		r.mu.Unlock()
	})
}

// shut closes both ends.
func (p *pipe) shut(reset bool) {
	for _, c := range p.ends {
		if reset {
			_ = c.SetLinger(0)
		}
		_ = c.Close()
	}
}

// carry moves the bytes of one direction.
func (p *pipe) carry(d direction) {
	from, to := p.ends[d], p.ends[1-d]
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		data, verdict := p.treat(d, buf[:n])
		if len(data) > 0 {
			if _, failed := to.Write(data); failed != nil && err == nil {
				err = failed
			}
		}
		if verdict == truncate || verdict == hangUp {
			p.shut(verdict == truncate)
			return
		}
		if err != nil {
			_ = from.Close()
			if !p.isLost(d) { // whose end would have travelled like bytes
				_ = to.Close()
			}
			return
		}
	}
}

func (p *pipe) isLost(d direction) bool {
	p.relay.mu.Lock()
	defer p.relay.mu.Unlock()
	return p.lost[d] || p.relay.swallow[d]
}

// treat says what of some bytes arrives, after it has waited as long as the relay stalls.
func (p *pipe) treat(d direction, data []byte) ([]byte, damage) {
	r := p.relay
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.stall[d] && !r.closed {
		changed := r.changed
		r.mu.Unlock()
		<-changed
		r.mu.Lock()
	}
	if len(data) == 0 {
		return nil, none
	}
	if r.swallow[d] || p.lost[d] {
		p.lost[d] = true
		p.harm()
		return nil, none
	}
	done := r.pending[d]
	if done == none {
		return data, none
	}
	if r.skip[d] > 0 {
		r.skip[d]--
		return data, none
	}
	r.pending[d] = none
	close(r.changed)
	r.changed = make(chan struct{})
	switch done {
	case flipBit:
		data[r.random.IntN(len(data))] ^= 1 << r.random.IntN(8)
		p.harm()
	case truncate:
		data = data[:r.random.IntN(len(data))]
	}
	return data, done
}

// harm wants the relay's mu.
func (p *pipe) harm() {
	if p.hurt.IsZero() {
		p.hurt = time.Now()
	}
}
