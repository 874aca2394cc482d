package apisim

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// chunk is what one Write sent.
type chunk struct {
	data []byte
	at   time.Time // when it arrives
}

// pipe is one direction of a connection: a bounded buffer between two processes.
type pipe struct {
	mu      sync.Mutex
	chunks  []chunk
	size    int // bytes in chunks
	eof     bool
	deaf    bool      // the reader has closed
	err     error     // the connection was reset
	errAt   time.Time // when that arrives: behind what was written before
	held    bool      // a black hole: nothing arrives for now, and nothing says so
	latency time.Duration
	room    int
	change  chan struct{} // closed, and replaced, when something changes

	readBy, writeBy time.Time // deadlines
}

func newPipe(latency time.Duration, room int) *pipe {
	return &pipe{latency: latency, room: room, change: make(chan struct{})}
}

// update changes the pipe and wakes who waits.
func (p *pipe) update(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.change)
	p.change = make(chan struct{})
}

// wait gives up mu until something changes or a moment has come. The zero moment never comes.
func (p *pipe) wait(moments ...time.Time) {
	change := p.change
	var first time.Time
	for _, m := range moments {
		if !m.IsZero() && (first.IsZero() || m.Before(first)) {
			first = m
		}
	}
	p.mu.Unlock()
	defer p.mu.Lock()
	if first.IsZero() {
		<-change
		return
	}
	timer := time.NewTimer(time.Until(first))
	defer timer.Stop()
	select {
	case <-change:
	case <-timer.C:
	}
}

// broken reports whether the news of a reset has arrived. The caller must hold mu.
func (p *pipe) broken() bool { return p.err != nil && !time.Now().Before(p.errAt) }

func past(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		arrives := p.errAt
		switch {
		case p.deaf:
			return 0, net.ErrClosed
		case past(p.readBy):
			return 0, os.ErrDeadlineExceeded
		case len(p.chunks) > 0 && !p.held:
			if c := &p.chunks[0]; !time.Now().Before(c.at) {
				return p.takeLocked(b), nil
			}
			arrives = p.chunks[0].at
		case p.broken():
			return 0, p.err
		case p.eof && !p.held:
			return 0, io.EOF
		}
		p.wait(arrives, p.readBy)
	}
}

// takeLocked moves bytes that have arrived. The caller must hold mu.
func (p *pipe) takeLocked(b []byte) (n int) {
	now := time.Now()
	for n < len(b) && len(p.chunks) > 0 && !now.Before(p.chunks[0].at) {
		c := &p.chunks[0]
		m := copy(b[n:], c.data)
		n += m
		if c.data = c.data[m:]; len(c.data) == 0 {
			p.chunks = p.chunks[1:]
		}
	}
	p.size -= n
	close(p.change)
	p.change = make(chan struct{})
	return n
}

func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		switch {
		case p.eof:
			return n, net.ErrClosed
		case p.broken():
			return n, p.err
		case past(p.writeBy):
			return n, os.ErrDeadlineExceeded
		case p.deaf && !p.held:
			return n, syscall.EPIPE
		}
		room := min(p.room-p.size, len(b))
		if room <= 0 {
			p.wait(p.writeBy, p.errAt)
			continue
		}
		p.chunks = append(p.chunks, chunk{append([]byte(nil), b[:room]...), time.Now().Add(p.latency)})
		p.size += room
		n += room
		b = b[room:]
		close(p.change)
		p.change = make(chan struct{})
	}
	return n, nil
}

// conn is one end of a connection.
type conn struct {
	owner         *process
	in, out       *pipe
	local, remote net.Addr
}

func (c *conn) Read(b []byte) (int, error) { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error) {
	if c.owner.dead.Load() { // it is not written
		return len(b), nil
	}
	return c.out.write(b)
}
func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Close() error {
	c.in.update(func() { c.in.deaf = true })
	return c.CloseWrite()
}

// CloseWrite ends this direction only.
func (c *conn) CloseWrite() error {
	c.out.update(func() { c.out.eof = true })
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.update(func() { c.in.readBy = t })
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.update(func() { c.out.writeBy = t })
	return nil
}
