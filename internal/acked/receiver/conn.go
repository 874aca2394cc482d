package receiver

import (
	"crypto/tls"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/flush"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// conn is one accepted connection. One goroutine reads it (serve), the flusher writes it.
type conn struct {
	receiver *Receiver
	nc       net.Conn
	enc      session.Encoder
	flusher  *flush.Flusher
	host     string        // that MaxConnectionsPerHost counts
	refusal  error         // why the peer will not be welcomed; set before serve starts
	written  chan struct{} // receives when control frames were taken to be written
	answered chan struct{} // closed when the peer has answered Goaway
	farewell chan struct{} // closed when the peer has read all that was written at the end
	ended    chan struct{} // closed at the end of terminate

	// The reader's.
	principal string // set by greet
	moves     bool   // the peer moves streams; likewise
	handles   map[uint64]*stream
	pings     pingBudget
	lastHeard time.Time // to an eighth of the silence that matters
	idle      bool      // nothing was heard for idleAfter
	metered   bool      // the greeting is over
	partial   int       // bytes since something was heard
	wholeAt   time.Time // when a frame was whole, or a Pong said that one is on its way

	mostHandles int

	out []byte // memory of flush

	attached atomic.Int64 // number of handles

	// mu guards the fields below.
	mu             sync.Mutex
	welcomed       bool
	welcomedAs     string // what principal was then
	agent          string // the software of the peer, as it says
	since          time.Time
	goawaySent     bool
	goawayAnswered bool      // the peer lives, and keeps what is not settled
	failureSent    bool      // nothing may follow it
	farewellSent   bool      // the last ping was sent, and not answered
	pendingControl []byte    // frames to write before the acks
	dirty          []*stream // that have acks to write
}

func newConn(r *Receiver, nc net.Conn) *conn {
	c := &conn{
		receiver: r, nc: nc, host: netio.HostOf(nc.RemoteAddr()),
		handles: map[uint64]*stream{}, written: make(chan struct{}, 1),
		answered: make(chan struct{}), farewell: make(chan struct{}), ended: make(chan struct{}),
	}
	if r.cfg.TLS != nil {
		c.nc = tls.Server(netio.Patient(nc, r.cfg.WriteTimeout), r.cfg.TLS)
	}
	c.enc = session.Encoder{Codec: r.codec, Checksum: r.cfg.TLS == nil}
	c.flusher = flush.New(r.cfg.Workers, c.flush)
	return c
}

// serve reads frames until the connection ends.
func (c *conn) serve() {
	r, err := c.handshake()
	if err != nil {
		c.terminate(err)
		return
	}
	c.readLoop(r)
}

// readLoop reads until the connection ends. When no frame has come for a while, it goes on in a new goroutine: the
// stack of one that has handled a frame has grown, and does not shrink.
func (c *conn) readLoop(r *framing.Reader) {
	if err := c.read(r); err == nil || !c.becomeIdle(err) {
		c.terminate(err)
		return
	}
	c.receiver.wg.Go(func() { c.readLoop(r) }) // ends with the connection; Close waits for it
}

// idleAfter is the silence after which a connection is idle.
const idleAfter = 500 * time.Millisecond

// Read is called by the framing.Reader. A large frame on a slow link is progress too, if it does not drip.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.nc.Read(p)
	if c.partial += n; !c.metered || c.partial < netio.Quota(c.receiver.cfg.DeadAfter) {
		return n, err
	}
	now := time.Now()
	c.notePartial(now)
	if n > 0 && err == nil {
		err = c.noteHeard(now)
	}
	return n, err
}

// notePartial tells the sender now and then that its frame arrives: it hears nothing else before the frame is whole.
func (c *conn) notePartial(now time.Time) {
	if now.Sub(c.wholeAt) >= c.receiver.cfg.DeadAfter/8 {
		c.wholeAt = now
		c.send(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{}}})
	}
}

// noteFrame notes that a frame is whole.
func (c *conn) noteFrame(now time.Time) error {
	c.wholeAt = now
	return c.noteHeard(now)
}

// noteHeard notes that the peer makes progress, and sets the deadline at which the connection becomes idle or is dead.
func (c *conn) noteHeard(now time.Time) error {
	c.partial = 0
	silence := c.receiver.cfg.DeadAfter
	if c.receiver.cfg.TLS == nil { // with it the stack would grow again to read
		silence = min(idleAfter, silence/2)
	}
	if now.Sub(c.lastHeard) < silence/8 {
		return nil
	}
	c.lastHeard, c.idle = now, false
	return c.nc.SetReadDeadline(now.Add(silence))
}

// becomeIdle tells whether read has returned err because the connection is idle, and sets the deadline at which it is
// dead.
func (c *conn) becomeIdle(err error) bool {
	if c.receiver.cfg.TLS != nil || c.idle || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.idle = true
	return c.nc.SetReadDeadline(c.lastHeard.Add(c.receiver.cfg.DeadAfter)) == nil
}

// read takes frames until the connection ends, or too little comes until the deadline.
func (c *conn) read(r *framing.Reader) error {
	for {
		payload, err := r.Next()
		if err != nil {
			return err
		}
		if err := c.noteFrame(time.Now()); err != nil {
			return err
		}
		if payload, err = c.enc.Verify(payload); err != nil {
			return err
		}
		if session.IsPublish(payload) {
			err = c.publish(r, payload)
		} else {
			err = c.control(payload)
		}
		if err != nil {
			return err
		}
	}
}

var publishFrames = sync.Pool{New: func() any { return new(session.PublishFrame) }}

// ownFrom is the size from which on a message keeps the memory that it was read into. Below it a copy costs less.
const ownFrom = 64 << 10

// publish passes the messages of a frame to their stream.
func (c *conn) publish(r *framing.Reader, payload []byte) error {
	f := publishFrames.Get().(*session.PublishFrame) //nolint:forcetypeassert // the pool holds nothing else
	defer publishFrames.Put(f)
	defer f.Release()
	if err := f.Decode(payload); err != nil {
		return err
	}
	if size := len(f.Messages[0]); len(f.Messages) == 1 && size >= ownFrom {
		f.Memory = r.Take()
		own := f.Memory[:len(payload)]
		f.Messages[0] = own[len(own)-size:]
	}
	s, err := c.streamOf(f.Handle)
	if err != nil {
		return err
	}
	return s.publish(c, f)
}

// terminate ends the connection: the peer learns why, where it is at fault, and the streams are detached.
func (c *conn) terminate(err error) {
	var refused *session.PeerError
	var broken *session.ProtocolError
	switch {
	case errors.As(err, &refused):
		c.sendFailure(session.CodeOf(refused), refused.Reason)
	case errors.As(err, &broken):
		c.sendFailure(wire.Code_CODE_PROTOCOL, broken.Rule)
	}
	defer close(c.ended)
	_ = c.nc.Close()
	c.flusher.Close()
	for _, h := range slices.Sorted(maps.Keys(c.handles)) { // in an order that a simulation can repeat
		s := c.handles[h]
		s.detach(c)
		switch {
		case s.isOver():
			c.receiver.forget(s)
		case s.topic.Unused():
			c.receiver.removeUnused(s)
		}
	}
	c.receiver.removeConn(c)
	c.noteEnd(err)
	if err != nil && c.refusal == nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		c.receiver.logEnd(c, err)
	}
}

// closeNow closes the connection at once. TLS would write a closing alert first, and wait seconds for a peer that does
// not read: that must not happen under a lock.
func (c *conn) closeNow() { netio.CloseNow(c.nc) }
