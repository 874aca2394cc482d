package pool

import (
	"errors"
	"os"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

const (
	// A connection is drained after drainReads reads in a row that brought nothing within drainWait each. More than
	// one, as a read on a busy machine can miss its deadline with bytes waiting.
	drainWait  = 25 * time.Millisecond
	drainReads = 2

	// drainLimit is more bytes than a kernel holds for a connection: a peer that goes on sending cannot hold up Close.
	drainLimit = 8 << 20
)

// Read is called by the framing.Reader, and only while that does not hold a whole frame.
func (in *inbound) Read(p []byte) (int, error) {
	for {
		expired, err := in.setDeadline()
		if err != nil {
			return 0, err
		}
		n, err := in.conn.Read(p)
		if n > 0 {
			in.received += uint64(n)
			in.drainReads = 0
			return n, err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if !in.isDraining() {
			return 0, expired
		}
	}
}

// setDeadline sets the deadline of the next read and returns the error that its expiry means, or the one that makes the
// read pointless.
func (in *inbound) setDeadline() (expired, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.draining:
		if in.drainEnd == 0 {
			in.drainEnd = in.received + drainLimit
		}
		in.drainReads++
		if in.drainReads > drainReads || in.received >= in.drainEnd {
			return nil, errDrained
		}
		return errDrained, in.setDeadlineLocked(time.Now().Add(drainWait))
	case in.received > in.consumed && in.l.cfg.FrameTimeout > 0:
		moved := in.received-in.frameMark >= uint64(netio.Quota(in.l.cfg.FrameTimeout))
		if in.frameEnd.IsZero() || in.frameStart != in.consumed || moved {
			in.frameStart, in.frameMark, in.frameEnd = in.consumed, in.received, time.Now().Add(in.l.cfg.FrameTimeout)
		}
		return errFrameTimeout, in.setDeadlineLocked(in.frameEnd)
	case in.received == in.consumed && in.l.cfg.IdleTimeout > 0:
		return errIdle, in.setDeadlineLocked(time.Now().Add(in.l.cfg.IdleTimeout))
	case in.timed:
		return nil, in.setDeadlineLocked(time.Time{})
	}
	return nil, nil
}

func (in *inbound) setDeadlineLocked(t time.Time) error {
	in.timed = !t.IsZero()
	return in.conn.SetReadDeadline(t)
}

// isDraining tells whether an expired deadline is part of draining.
func (in *inbound) isDraining() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.draining
}

// drain makes the connection end when the kernel has nothing more for it. Close calls it while serve runs.
func (in *inbound) drain() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.draining = true
	_ = in.raw.SetReadDeadline(time.Unix(1, 0)) // wakes a Read; a closed connection needs no waking
}
