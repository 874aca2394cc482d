package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/flush"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// maxTopicName is the longest topic name that a stream may have.
const maxTopicName = 1024

// endpointConn is one accepted connection. Its reader is serve; its flusher writes acks.
type conn struct {
	receiver *Receiver
	nc       net.Conn
	enc      session.Encoder
	flusher  *flush.Flusher
	handles  map[uint64]*stream // the reader's
	host     string             // that MaxConnectionsPerHost counts
	refusal  error              // why the peer will not be welcomed, known before it says a word
	pings    pingBudget         // the reader's
	heard    time.Time          // the reader's: when a frame came, to an eighth of the silence that matters
	resting  bool               // the reader's: nothing has come for a while
	written  chan struct{}      // receives when control frames went out

	principal string // set by greet
	out       []byte // the flusher's

	mu      sync.Mutex
	greeted bool      // the peer was welcomed
	leaving bool      // a goaway was sent
	failing bool      // a failure was sent: nothing may follow it
	vouched bool      // the peer has answered the goaway: it lives, and keeps what is not settled
	control []byte    // frames to write before the acks
	dirty   []*stream // streams that have something to tell
}

func newConn(e *Receiver, nc net.Conn) *conn {
	c := &conn{receiver: e, nc: nc, host: netio.HostOf(nc.RemoteAddr()), handles: map[uint64]*stream{}, written: make(chan struct{}, 1)}
	if e.cfg.TLS != nil {
		c.nc = tls.Server(nc, e.cfg.TLS)
	}
	c.enc = session.Encoder{Codec: e.codec, Checksum: e.cfg.TLS == nil}
	c.flusher = flush.New(e.cfg.Workers, c.flush)
	return c
}

// serve reads frames until the connection ends, then detaches its streams.
func (c *conn) serve() {
	r, err := c.handshake()
	if err != nil {
		c.end(err)
		return
	}
	c.listen(r)
}

// listen reads until the connection ends. When it has been quiet for a while it goes on in a new goroutine: the stack of one
// that has handled a frame has grown, and does not shrink.
func (c *conn) listen(r *framing.Reader) {
	if err := c.read(r); err == nil || !c.rest(err) {
		c.end(err)
		return
	}
	c.receiver.wg.Go(func() { c.listen(r) }) // ends with the connection
}

// end tells the peer why the connection ends, where it is its fault, and detaches the streams.
func (c *conn) end(err error) {
	var refused *session.PeerError
	var broken *session.ProtocolError
	switch {
	case errors.As(err, &refused):
		c.fail(refused.Code, refused.Reason)
	case errors.As(err, &broken):
		c.fail(wire.Code_CODE_PROTOCOL, broken.Rule)
	}
	_ = c.nc.Close()
	c.flusher.Close()
	for _, h := range slices.Sorted(maps.Keys(c.handles)) { // in an order that a simulation can repeat
		s := c.handles[h]
		s.detach(c)
		if s.topic.Deserted() {
			c.receiver.release(s)
		}
	}
	c.receiver.forget(c)
	if err != nil && c.refusal == nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		c.receiver.cfg.Logger.Info("Connection ended", watermill.LogFields{
			"provider": netio.Provider, "address": c.receiver.cfg.Address, "peer": netio.PeerText(c.nc.RemoteAddr()),
			"err": netio.Printable(err.Error()),
		})
	}
}

// handshake returns a reader of what comes behind the greeting.
func (c *conn) handshake() (*framing.Reader, error) {
	deadline := time.Now().Add(c.receiver.cfg.HandshakeTimeout) // of all of it: a peer gains nothing by being slow
	if err := c.nc.SetDeadline(deadline); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadline(c.receiver.ctx, deadline)
	defer cancel()
	if err := c.secure(ctx); err != nil {
		return nil, err
	}
	small, err := session.GreetingCodec()
	if err != nil {
		return nil, err
	}
	r := framing.NewReader(netio.ReadWhenReady(c.nc), small)
	if err := c.greet(ctx, r); err != nil {
		return nil, err
	}
	r.SetCodec(c.receiver.codec)
	return r, c.hear(time.Now())
}

// greet takes the Hello and answers it.
func (c *conn) greet(ctx context.Context, r *framing.Reader) error {
	payload, err := r.Next()
	if err != nil {
		return err
	}
	if payload, err = c.enc.Open(payload); err != nil {
		return err
	}
	frame, err := session.Decode(payload)
	if err != nil {
		return err
	}
	hello, ok := frame.(*wire.Hello)
	switch {
	case !ok:
		return &session.ProtocolError{Rule: "the first frame must be a hello"}
	case hello.Version < session.Version:
		return &session.PeerError{Code: wire.Code_CODE_VERSION, Reason: "this listener speaks version 1"}
	case hello.MaxFrame < session.MinFrame:
		return &session.ProtocolError{Rule: "max_frame of the hello is too small"}
	}
	if err := c.welcome(ctx, hello); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted = true
	c.append(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{
		Version:    session.Version,
		MaxFrame:   uint64(session.MaxFrame(c.receiver.cfg.MaxMessageSize)),
		MaxMessage: uint64(c.receiver.cfg.MaxMessageSize),
	}}})
	c.flusher.Kick()
	return nil
}

// quietAfter is the silence after which a connection rests.
const quietAfter = 500 * time.Millisecond

// hear notes that a frame came. Silence until the deadline that it sets is a rest, or the end.
func (c *conn) hear(now time.Time) error {
	silence := c.receiver.cfg.DeadAfter
	if c.receiver.cfg.TLS == nil { // with it the stack would grow again to read
		silence = min(quietAfter, silence/2)
	}
	if now.Sub(c.heard) < silence/8 {
		return nil
	}
	c.heard, c.resting = now, false
	return c.nc.SetReadDeadline(now.Add(silence))
}

// rest tells whether the connection may go on to be silent, where err says that it was.
func (c *conn) rest(err error) bool {
	if c.receiver.cfg.TLS != nil || c.resting || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	c.resting = true
	return c.nc.SetReadDeadline(c.heard.Add(c.receiver.cfg.DeadAfter)) == nil
}

// read takes frames until the connection ends, or is silent.
func (c *conn) read(r *framing.Reader) error {
	for {
		payload, err := r.Next()
		if err != nil {
			return err
		}
		if err := c.hear(time.Now()); err != nil {
			return err
		}
		if payload, err = c.enc.Open(payload); err != nil {
			return err
		}
		if session.IsPublish(payload) {
			err = c.publish(r, payload)
		} else {
			err = c.takeControl(payload)
		}
		if err != nil {
			return err
		}
	}
}

// publishes are used again: all of a busy connection's messages pass through one.
var publishes = sync.Pool{New: func() any { return new(session.PublishFrame) }}

// ownFrom is the size of a message from which on the memory that it was read into is kept. Below it a copy costs less.
const ownFrom = 16 << 10

// publish takes messages.
func (c *conn) publish(r *framing.Reader, payload []byte) error {
	f := publishes.Get().(*session.PublishFrame)
	defer publishes.Put(f)
	defer f.Release()
	if err := f.Decode(payload); err != nil {
		return err
	}
	if size := len(f.Messages[0]); len(f.Messages) == 1 && size >= ownFrom {
		own := r.Take()[:len(payload)]
		f.Messages[0], f.Owned = own[len(own)-size:len(own):len(own)], true
	}
	s := c.handles[f.Handle]
	if s == nil {
		return unknownHandle(f.Handle)
	}
	return s.publish(c, f)
}

// takeControl takes a frame without messages.
func (c *conn) takeControl(payload []byte) error {
	frame, err := session.Decode(payload)
	if err != nil {
		return err
	}
	if err := c.handle(frame); err != nil {
		return err
	}
	return c.holdBack()
}

func (c *conn) handle(frame any) error {
	switch f := frame.(type) {
	case *wire.Open:
		return c.open(f)
	case *wire.Want:
		s := c.handles[f.Handle]
		if s == nil {
			return unknownHandle(f.Handle)
		}
		s.want(c, f.SeenMessages, f.Messages, f.Bytes, f.LeastBytes)
	case *wire.RejectSeen:
		s := c.handles[f.Handle]
		if s == nil {
			return unknownHandle(f.Handle)
		}
		s.rejectSeen(f.Sequence)
	case *wire.Release:
		c.release(f.Handle)
	case *wire.Ping:
		if !c.pings.spend(time.Now()) {
			return &session.ProtocolError{Rule: "too many pings"}
		}
		c.send(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: f.Id}}})
	case *wire.Pong:
		c.mu.Lock()
		c.vouched = c.vouched || c.leaving && f.Id == goawayPing
		c.mu.Unlock()
	case *wire.Failure:
		return fmt.Errorf("the peer gave up: %w", &peerFailure{f.Code, f.Reason})
	default:
		return &session.ProtocolError{Rule: fmt.Sprintf("unexpected %T", frame)}
	}
	return nil
}

// release forgets a stream that its sender has ended, or has learnt the end of.
func (c *conn) release(handle uint64) {
	s := c.handles[handle]
	switch {
	case s == nil:
	case s.over():
		delete(c.handles, handle)
	case s.forgettableBy(c):
		delete(c.handles, handle)
		s.detach(c)
		c.receiver.erase(s)
	}
}

// peerFailure is what the peer says of why it ends the connection. It is not answered.
type peerFailure struct {
	code   wire.Code
	reason string
}

func (e *peerFailure) Error() string { return fmt.Sprintf("%s: %.200q", e.code, e.reason) }

func unknownHandle(h uint64) error {
	return &session.ProtocolError{Rule: fmt.Sprintf("no stream is open with handle %d", h)}
}

func (c *conn) open(f *wire.Open) error {
	if c.handles[f.Handle] != nil {
		return &session.ProtocolError{Rule: fmt.Sprintf("handle %d is open already", f.Handle)}
	}
	if len(c.handles) >= c.receiver.cfg.MaxTopics {
		return &session.PeerError{Code: wire.Code_CODE_LIMIT, Reason: "too many streams"}
	}
	refused := c.may(f.Topic)
	var s *stream
	if refused == nil {
		s, refused = c.receiver.open(f, c.principal)
	}
	if refused != nil {
		c.send(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{
			Handle: f.Handle, Code: refused.Code, Reason: refused.Reason,
		}}})
		return nil
	}
	if s.on(c) { // somebody else of the same identity carries on
		maps.DeleteFunc(c.handles, func(_ uint64, other *stream) bool { return other == s })
	}
	c.handles[f.Handle] = s
	s.attach(c, f)
	return nil
}

// fail tells the peer why the connection ends.
func (c *conn) fail(code wire.Code, reason string) {
	c.mu.Lock()
	c.append(&wire.Frame{Body: &wire.Frame_Failure{Failure: &wire.Failure{Code: code, Reason: truncate(reason, 512)}}})
	c.failing = true
	c.mu.Unlock()
	c.flusher.Kick()
	c.flusher.Close()
	c.linger()
}

// goawayPing is the id of the ping behind a goaway.
const goawayPing = 1

// goaway asks the peer to send nothing more, and to say that it heard. One that was not welcomed yet will not be.
func (c *conn) goaway() {
	c.mu.Lock()
	if !c.greeted {
		c.mu.Unlock()
		_ = c.nc.Close()
		return
	}
	c.leaving = true
	c.append(&wire.Frame{Body: &wire.Frame_Goaway{Goaway: &wire.Goaway{Reason: "the listener closes"}}})
	c.append(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: goawayPing}}})
	c.mu.Unlock()
	c.flusher.Kick()
}

// keeps tells whether the peer is known to live and to keep what is not settled, though the listener goes away.
func (c *conn) keeps() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.vouched
}

// shut closes the connection after the acks that are due were written, or ctx is done.
func (c *conn) shut(ctx context.Context) {
	defer context.AfterFunc(ctx, c.closeNow)()
	c.flusher.Kick()
	c.flusher.Close()
	_ = c.nc.Close()
}
