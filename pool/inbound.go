package pool

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// Why a connection ended, where its peer or the framing has no error for it.
var (
	errDrained      = errors.New("pool: listener closed")
	errAborted      = errors.New("pool: listener closed before a message was handed over")
	errIdle         = errors.New("pool: no message began within IdleTimeout")
	errFrameTimeout = errors.New("pool: a message made next to no progress within FrameTimeout")
)

// inbound is a connection of a Listener. It is the source of its framing.Reader, so that a deadline can be set
// according to what the Reader waits for.
type inbound struct {
	l    *Listener
	raw  net.Conn
	conn net.Conn // raw, or TLS over it
	host string

	// The goroutine that runs serve alone uses these.
	received   uint64 // bytes read
	consumed   uint64 // bytes of the frames that were handed over
	scratch    [16]byte
	empties    int       // empty messages in a row
	emptySince time.Time // when the first of them came
	drainEnd   uint64    // received must not pass it; 0: not set yet
	drainReads int       // reads in a row since one brought something
	frameStart uint64    // consumed when frameEnd was set
	frameMark  uint64    // received when frameEnd was set
	frameEnd   time.Time // deadline of the frame that has begun
	timed      bool      // the connection has a deadline
	admitted   bool
	since      time.Time // it was admitted

	mu       sync.Mutex // guards draining and the read deadline of conn, which drain sets as well
	draining bool
}

func (in *inbound) serve() {
	defer in.l.unregister(in)
	defer func() { _ = in.conn.Close() }() // nothing is written that its error could concern
	err := in.receive()
	in.logEnd(err)
	in.tellEnd(err)
}

func (in *inbound) receive() error {
	if err := in.handshake(); err != nil {
		return err
	}
	in.tellAccepted()
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
			in.throttleEmpty(limit)
		}
		if in.l.aborted.Load() || (callback == nil && !in.deliver(reader.Take())) {
			in.countDropped(reader)
			return errAborted
		}
		if callback == nil {
			continue
		}
		in.call(callback, message)
	}
}

// call hands a message to the Callback. An error or a panic is that message's alone.
func (in *inbound) call(callback ListenCallback, message []byte) {
	defer func() {
		if p := recover(); p != nil {
			in.l.cfg.Logger.Error("Callback panicked", fmt.Errorf("panic: %v", p),
				in.fields().Add(watermill.LogFields{"stack": string(debug.Stack())}))
		}
	}()
	if err := callback(message); err != nil {
		in.l.cfg.Logger.Error("Callback failed", err, in.fields())
	}
}

// handshake does the one of TLS, and asks Admit.
func (in *inbound) handshake() error {
	ctx, cancel := context.WithTimeout(context.Background(), in.l.cfg.HandshakeTimeout)
	defer cancel()
	if secured, ok := in.conn.(*tls.Conn); ok {
		if err := netio.Handshake(ctx, secured); err != nil {
			return fmt.Errorf("pool: TLS handshake: %s", netio.Printable(err.Error()))
		}
	}
	if in.l.cfg.Admit == nil {
		return nil
	}
	_, err := hook.CallWithin(ctx, "ListenerConfig.Admit", func() (struct{}, error) { return struct{}{}, in.l.cfg.Admit(ctx, in.conn) }, nil)
	return err
}

// deliver sends a message to the channel. It returns false if the Listener was aborted.
func (in *inbound) deliver(message []byte) bool {
	select {
	case in.l.cfg.Messages <- message:
		return true
	default: // one case is cheaper, and room is the rule
	}
	select {
	case in.l.cfg.Messages <- message:
		return true
	case <-in.l.abort:
		return false
	}
}

// countDropped counts the message at hand and those that were received behind it.
func (in *inbound) countDropped(reader *framing.Reader) {
	n := int64(1)
	for reader.Buffered() {
		if _, err := reader.Next(); err != nil {
			break
		}
		n++
	}
	in.l.dropped.Add(n)
}

// throttleEmpty slows down a peer that sends nothing but headers.
func (in *inbound) throttleEmpty(limit int) {
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
	header, _ := in.l.codec.AppendHeader(in.scratch[:0], length) // an error: a codec that contradicts its ParseHeader
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

// logEnd logs what ended the connection, unless it was an ordinary end.
func (in *inbound) logEnd(err error) {
	interrupted := in.received > in.consumed // a message
	var netErr net.Error
	switch {
	case err == io.EOF, errors.Is(err, errDrained) && !interrupted, in.received == 0 && in.isDraining(): //nolint:errorlint // a hook's error may wrap io.EOF
		return
	case in.received == 0, errors.Is(err, errIdle), errors.Is(err, errDrained), errors.As(err, &netErr) && !interrupted:
		in.l.cfg.Logger.Info("Connection ended", in.fields().Add(watermill.LogFields{"err": err}))
	default:
		in.l.cfg.Logger.Error("Connection ended, the message that had begun is lost", err, in.fields())
	}
}

func (in *inbound) fields() watermill.LogFields {
	return in.l.fields().Add(watermill.LogFields{"peer": netio.Quote(in.raw.RemoteAddr().String())})
}
