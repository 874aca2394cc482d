package netio

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// minRate is the least rate, in bytes a second, at which a peer that takes or sends bytes counts as making progress. A
// time-out bounds the time without progress, whatever the size of a message.
const minRate = 1 << 10

// Quota is how many bytes have to pass within a time-out.
func Quota(timeout time.Duration) int { return max(1, int(timeout.Seconds()*minRate)) }

const (
	// writeSlices is in how many parts a time-out of a write is divided. The kernel does not wake a writer for little
	// room: after each part the socket is asked anew.
	writeSlices = 4
	// writePiece is how many bytes one time-out is for, where a write that timed out cannot go on.
	writePiece = 64 << 10
)

// Write writes buf to conn. It fails when less than Quota was taken within timeout. It sets the write deadline.
func Write(conn net.Conn, buf []byte, timeout time.Duration) error {
	_, err := WriteN(conn, buf, timeout)
	return err
}

// WriteN is Write, and returns how many bytes were written.
func WriteN(conn net.Conn, buf []byte, timeout time.Duration) (int, error) {
	if !resumes(conn) {
		return writePieces(conn, buf, timeout)
	}
	return writeAll(conn, timeout, time.Time{}, buf)
}

// WriteBuffers is Write for several buffers, which it consumes.
func WriteBuffers(conn net.Conn, parts *net.Buffers, timeout time.Duration) error {
	if !resumes(conn) {
		for _, b := range *parts {
			if _, err := writePieces(conn, b, timeout); err != nil {
				return err
			}
		}
		return nil
	}
	p := beginProgress(timeout, time.Time{})
	for {
		if err := conn.SetWriteDeadline(p.deadline); err != nil {
			return err
		}
		n, err := parts.WriteTo(conn)
		if err == nil || !p.goesOn(int(n), err) {
			return err
		}
	}
}

// resumes tells whether a write to conn that timed out can be gone on with.
func resumes(conn net.Conn) bool {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		return true
	}
	return false
}

// writePieces has a time-out for each piece.
func writePieces(conn net.Conn, buf []byte, timeout time.Duration) (written int, err error) {
	if secured, ok := conn.(*tls.Conn); ok {
		if _, patient := secured.NetConn().(*patientConn); patient {
			if err := conn.SetWriteDeadline(time.Time{}); err != nil {
				return 0, err
			}
			return conn.Write(buf)
		}
	}
	for written < len(buf) {
		if err := conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
			return written, err
		}
		n, err := conn.Write(buf[written:min(len(buf), written+writePiece)])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// progress decides whether a write that timed out goes on.
type progress struct {
	timeout  time.Duration
	limit    time.Time // of all of it; zero: none
	since    time.Time // when passed began to count
	passed   int
	deadline time.Time // for the next attempt
}

func beginProgress(timeout time.Duration, limit time.Time) progress {
	p := progress{timeout: timeout, limit: limit, since: time.Now()}
	p.setDeadline(p.since)
	return p
}

func (p *progress) setDeadline(now time.Time) {
	p.deadline = now.Add(p.timeout / writeSlices)
	if !p.limit.IsZero() && p.limit.Before(p.deadline) {
		p.deadline = p.limit
	}
}

// goesOn tells whether a write that has written n bytes before err goes on, with another deadline.
func (p *progress) goesOn(n int, err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	now := time.Now()
	if p.passed += n; p.passed >= Quota(p.timeout) {
		p.since, p.passed = now, 0
	}
	if now.Sub(p.since) >= p.timeout || !p.limit.IsZero() && !now.Before(p.limit) {
		return false
	}
	p.setDeadline(now)
	return true
}

// writeAll writes buf to a connection whose writes resume.
func writeAll(conn net.Conn, timeout time.Duration, limit time.Time, buf []byte) (written int, err error) {
	p := beginProgress(timeout, limit)
	for {
		if err := conn.SetWriteDeadline(p.deadline); err != nil {
			return written, err
		}
		n, err := conn.Write(buf[written:])
		written += n
		if err == nil || !p.goesOn(n, err) {
			return written, err
		}
	}
}

// Patient returns conn for TLS to write to, where a write that timed out ends the connection for good: its writes go on
// as those of Write. A connection that is not a bare socket is returned as it is.
func Patient(conn net.Conn, timeout time.Duration) net.Conn {
	if !resumes(conn) {
		return conn
	}
	return &patientConn{Conn: conn, timeout: timeout}
}

type patientConn struct {
	net.Conn
	timeout time.Duration
	limit   atomic.Int64 // the write deadline that was set, in ns since 1970; 0: none
}

// SetDeadline implements net.Conn.
func (c *patientConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetWriteDeadline(t), c.SetReadDeadline(t))
}

// SetWriteDeadline implements net.Conn.
func (c *patientConn) SetWriteDeadline(t time.Time) error {
	limit := int64(0)
	if !t.IsZero() {
		limit = t.UnixNano()
	}
	c.limit.Store(limit)
	return c.Conn.SetWriteDeadline(t)
}

// Write implements net.Conn.
func (c *patientConn) Write(b []byte) (written int, err error) {
	var limit time.Time
	if ns := c.limit.Load(); ns != 0 {
		limit = time.Unix(0, ns)
	}
	return writeAll(c.Conn, c.timeout, limit, b)
}

// CloseWrite shuts down the writing side.
func (c *patientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
