package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

const (
	// Draining a connection ends after drainPatience reads in a row that
	// brought nothing within drainPause each. More than one, as a read on a busy
	// machine can miss its deadline with bytes waiting.
	drainPause    = 25 * time.Millisecond
	drainPatience = 2

	// drainLimit is more than a kernel holds for a connection: a peer that goes
	// on sending cannot hold up Close.
	drainLimit = 8 << 20
)

// Why a connection ended, where its peer or the framing has no error for it.
var (
	errDrained      = errors.New("pool: listener closed")
	errAborted      = errors.New("pool: listener closed before a message was handed over")
	errIdle         = errors.New("pool: no message began within IdleTimeout")
	errFrameTimeout = errors.New("pool: a message was not complete within FrameTimeout")
)

// inbound is a connection of a Listener. It is the source of its framing.Reader,
// so that a deadline can be set according to what the Reader waits for.
type inbound struct {
	l    *Listener
	raw  net.Conn
	conn net.Conn // raw, or TLS over it
	host string

	// The rest belongs to serve, except draining, which mu guards.
	received   uint64 // bytes read
	consumed   uint64 // bytes of the frames that were handed over
	scratch    [16]byte
	empties    int       // messages without content in a row
	emptySince time.Time // when the first of them came
	drainEnd   uint64    // received must not pass it; 0: not set yet
	drainTries int       // reads in a row since one brought something
	frameStart uint64    // consumed when frameEnd was set
	frameEnd   time.Time // deadline of the frame that has begun
	timed      bool      // the connection has a deadline

	mu       sync.Mutex // held while a deadline is set, so that drain's is not overwritten
	draining bool
}

func (in *inbound) serve() {
	defer in.l.exit(in)
	defer func() { _ = in.conn.Close() }() // nothing is written that its error could tell of
	defer func() {
		if p := recover(); p != nil {
			in.l.cfg.Logger.Error("callback panicked; connection ended", fmt.Errorf("panic: %v", p),
				in.fields().Add(watermill.LogFields{"stack": string(debug.Stack())}))
		}
	}()
	in.report(in.receive())
}

func (in *inbound) receive() error {
	if err := in.handshake(); err != nil {
		return err
	}
	reader := framing.NewReader(in, in.l.codec)
	callback, limit := in.l.cfg.Callback, in.l.cfg.MaxEmptyMessages
	for {
		message, err := reader.Next()
		if err != nil {
			return err
		}
		in.consumed += uint64(in.frameSize(len(message)))
		if len(message) > 0 {
			in.empties = 0
		} else if limit >= 0 {
			in.countEmpty(limit)
		}
		if in.l.aborted.Load() || (callback == nil && !in.offer(reader.Take())) {
			in.drop(reader)
			return errAborted
		}
		if callback == nil {
			continue
		}
		if err := callback(message); err != nil {
			in.l.cfg.Logger.Error("callback failed", err, in.fields())
		}
	}
}

func (in *inbound) handshake() error {
	ctx, cancel := context.WithTimeout(context.Background(), in.l.cfg.HandshakeTimeout)
	defer cancel()
	if secured, ok := in.conn.(*tls.Conn); ok {
		if err := secured.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("pool: TLS handshake: %s", netio.Printable(err.Error()))
		}
	}
	if in.l.cfg.Admit == nil {
		return nil
	}
	return in.l.cfg.Admit(ctx, in.conn)
}

// offer puts a message into the channel and waits for room.
func (in *inbound) offer(message []byte) bool {
	select {
	case in.l.cfg.Messages <- message:
		return true
	default:
	}
	select {
	case in.l.cfg.Messages <- message:
		return true
	case <-in.l.abort:
		return false
	}
}

// drop counts the message at hand and those that were received behind it.
func (in *inbound) drop(reader *framing.Reader) {
	n := int64(1)
	for reader.Buffered() {
		if _, err := reader.Next(); err != nil {
			break
		}
		n++
	}
	in.l.dropped.Add(n)
}

// countEmpty slows down a peer that sends nothing but headers.
func (in *inbound) countEmpty(limit int) {
	if in.empties == 0 {
		in.emptySince = time.Now()
	}
	if in.empties++; in.empties <= limit {
		return
	}
	in.empties = 0
	if wait := time.Until(in.emptySince.Add(time.Second)); wait > 0 {
		in.l.sleep(wait)
	}
}

func (in *inbound) frameSize(length int) int {
	if in.l.headerWidth > 0 {
		return in.l.headerWidth + length
	}
	header, err := in.l.codec.AppendHeader(in.scratch[:0], length)
	if err != nil {
		return length // of a frame that ParseHeader took: a codec at odds with itself
	}
	return len(header) + length
}

// constantWidth is the width that all headers of codec have, or 0.
func constantWidth(codec framing.Codec) (int, error) {
	least, err := codec.AppendHeader(nil, 0)
	if err != nil {
		return 0, err
	}
	most, err := codec.AppendHeader(nil, codec.MaxLength())
	if err != nil || len(least) != len(most) {
		return 0, err
	}
	return len(most), nil
}

// Read is for the framing.Reader, which asks for more only while it does not
// hold a whole frame.
func (in *inbound) Read(p []byte) (int, error) {
	for {
		expired, err := in.arm()
		if err != nil {
			return 0, err
		}
		n, err := in.conn.Read(p)
		if n > 0 {
			in.received += uint64(n)
			in.drainTries = 0
			return n, err
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if !in.drainingNow() {
			return 0, expired
		}
	}
}

// arm sets the deadline for the next read and returns the error that its expiry
// means, or the one that makes the read pointless.
func (in *inbound) arm() (expired, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.draining:
		if in.drainEnd == 0 {
			in.drainEnd = in.received + drainLimit
		}
		in.drainTries++
		if in.drainTries > drainPatience || in.received >= in.drainEnd {
			return nil, errDrained
		}
		return errDrained, in.setDeadline(time.Now().Add(drainPause))
	case in.received > in.consumed && in.l.cfg.FrameTimeout > 0:
		if in.frameEnd.IsZero() || in.frameStart != in.consumed {
			in.frameStart, in.frameEnd = in.consumed, time.Now().Add(in.l.cfg.FrameTimeout)
		}
		return errFrameTimeout, in.setDeadline(in.frameEnd)
	case in.received == in.consumed && in.l.cfg.IdleTimeout > 0:
		return errIdle, in.setDeadline(time.Now().Add(in.l.cfg.IdleTimeout))
	case in.timed:
		return nil, in.setDeadline(time.Time{})
	}
	return nil, nil
}

// setDeadline wants mu.
func (in *inbound) setDeadline(t time.Time) error {
	in.timed = !t.IsZero()
	return in.conn.SetReadDeadline(t)
}

// drainingNow tells whether an expired deadline is part of draining.
func (in *inbound) drainingNow() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.draining
}

// drain makes the connection end when the kernel has nothing more for it. It is
// called by Close, while serve runs.
func (in *inbound) drain() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.draining = true
	_ = in.raw.SetReadDeadline(time.Unix(1, 0)) // wakes a Read; a closed connection needs no waking
}

// report logs what ended the connection, unless it was an ordinary end.
func (in *inbound) report(err error) {
	cut := in.received > in.consumed
	var netErr net.Error
	switch {
	case err == io.EOF, errors.Is(err, errDrained) && !cut, in.received == 0 && in.drainingNow():
		return
	case in.received == 0, errors.Is(err, errIdle), errors.Is(err, errDrained), errors.As(err, &netErr) && !cut:
		in.l.cfg.Logger.Info("connection ended", in.fields().Add(watermill.LogFields{"err": err}))
	default:
		in.l.cfg.Logger.Error("connection ended; what it had begun to send is lost", err, in.fields())
	}
}

func (in *inbound) fields() watermill.LogFields {
	return in.l.fields().Add(watermill.LogFields{"peer": netio.Quote(in.raw.RemoteAddr().String())})
}
