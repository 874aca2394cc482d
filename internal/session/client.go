package session

import (
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// ClientConfig sets up a Client. All fields are required but NextStream and Agent.
type ClientConfig struct {
	Identity    Identity
	NextStream  func() uint64 // a number that no other stream of the Identity has; nil: this is its only Client
	Window      Window
	MaxFrame    int           // largest frame payload accepted, in bytes
	PingAfter   time.Duration // of silence
	DeadAfter   time.Duration // of silence
	ForgetAfter time.Duration // a stream that was idle for so long is ended; 0: never
	IdleCredit  time.Duration // a stream that sent nothing for so long gives its credit back
	Agent       string
}

// phase is how far a connection has come.
type phase int

const (
	down phase = iota
	greeting
	ready
	draining
)

// Client is the sending side of one destination: its streams, which outlive connections, and the state of the current
// connection. It does no I/O: frames come in through Receive and go out through Output. It is not safe for
// concurrent use.
type Client struct {
	cfg     ClientConfig
	token   []byte
	enc     Encoder
	streams map[string]*Outbound // by topic
	handles map[uint64]*Outbound
	order   []*Outbound // of handles, and some that are gone: see inOrder
	last    uint64      // handle given last

	phase      phase
	maxFrame   int         // largest frame payload the peer accepts
	largest    uint64      // message that it accepts, as credit counts it; 0: it has not said
	ready      []*Outbound // streams that may have something to send
	control    []byte      // encoded frames to send before the segments
	pongs      int         // of these
	heard      time.Time
	pinged     time.Time
	ticked     time.Time
	refused    []Refused
	unsendable error // a control frame could not be encoded
	busy       bool  // as the last Tick saw it
	spoke      bool  // something was sent since the last Tick
	spokeAt    time.Time
	news       []*Outbound // relays with events
	yard       yard
}

// NewClient returns a Client without a connection.
func NewClient(cfg ClientConfig) *Client {
	c := &Client{cfg: cfg, streams: map[string]*Outbound{}, handles: map[uint64]*Outbound{}}
	if c.cfg.NextStream == nil {
		c.cfg.NextStream = func() uint64 { return c.last }
	}
	return c
}

// Stream returns the stream to a topic, and makes it where there is none.
func (c *Client) Stream(topic string) *Outbound {
	o := c.streams[topic]
	if o == nil {
		c.last++
		o = newOutbound(c.cfg.Identity, c.cfg.NextStream(), c.last, topic, c.cfg.Window, 1)
		o.yard = &c.yard
		c.streams[topic] = o
		c.add(o)
	}
	return o
}

func (c *Client) add(o *Outbound) {
	c.handles[o.handle] = o
	c.order = append(c.order, o)
}

// inOrder returns the streams from the oldest to the newest: what a run of the simulation does must not hang on the order of a
// map. Streams may end meanwhile.
func (c *Client) inOrder() []*Outbound {
	c.order = slices.DeleteFunc(c.order, func(o *Outbound) bool { return c.handles[o.handle] != o })
	return c.order
}

// Find returns the stream to a topic, or nil.
func (c *Client) Find(topic string) *Outbound { return c.streams[topic] }

// Pending is the number of messages that are not settled.
func (c *Client) Pending() (n int) {
	for _, o := range c.handles {
		n += o.waits()
	}
	return n
}

// Unreceived is the number of messages that the receiver is not known to have.
func (c *Client) Unreceived() (n int) {
	for _, o := range c.handles {
		n += o.Unreceived()
	}
	return n
}

// Enqueue takes as many messages of b, from index i on, as the stream's window has room for, and returns how many and
// the sequence of the first.
func (c *Client) Enqueue(o *Outbound, b *Batch, i int) (taken int, first uint64, err error) {
	if o.cause != nil {
		return 0, 0, o.cause
	}
	first = o.next
	taken = o.enqueue(b, i)
	if taken > 0 {
		c.schedule(o)
	}
	return taken, first, nil
}

// Await registers w with its stream; w.Done receives a value when the messages have come far enough.
func (c *Client) Await(o *Outbound, w *Waiter) { o.await(w) }

// schedule puts a stream in line for sending, or opens it first.
func (c *Client) schedule(o *Outbound) {
	if c.phase != ready || o.queued {
		return
	}
	switch o.state {
	case unopened:
		if o.waits() > 0 {
			c.open(o)
		}
	case open:
		o.queued = true
		c.ready = append(c.ready, o)
	}
}

func (c *Client) open(o *Outbound) {
	o.state = opening
	messages, bytes, least := uint64(o.waits()), uint64(1), uint64(1) // a relay has not fetched anything yet
	if o.relay == nil {
		o.seekTo(o.settled.Next())
		messages, bytes, least = o.want()
	}
	o.wanting = messages > 0
	c.send(&wire.Frame{Body: &wire.Frame_Open{Open: &wire.Open{
		Handle: o.handle, Publisher: o.id.Publisher[:], Epoch: o.id.Epoch, Secret: o.id.Secret[:], Stream: o.stream,
		Topic: o.Topic, Base: o.settled.Next(), WantMessages: messages, WantBytes: bytes, LeastBytes: least,
	}}})
}

// send queues a control frame. One that cannot be encoded ends the connection at the next Receive or Tick.
func (c *Client) send(f *wire.Frame) {
	out, err := c.enc.AppendControl(c.control, f)
	if err != nil {
		c.unsendable = err
		return
	}
	c.control = out
}

// SetToken sets what is shown to the peer from the next Connect on.
func (c *Client) SetToken(token []byte) { c.token = token }

// Connect starts the conversation on a new connection.
func (c *Client) Connect(enc Encoder, now time.Time) {
	c.enc, c.phase, c.heard, c.spokeAt, c.unsendable = enc, greeting, now, now, nil
	c.control, c.ready, c.pongs = nil, nil, 0
	c.send(&wire.Frame{Body: &wire.Frame_Hello{Hello: &wire.Hello{
		Version: Version, MaxFrame: uint64(c.cfg.MaxFrame), Token: c.token, Agent: c.cfg.Agent,
	}}})
}

// Disconnect forgets the connection. Every message that is not settled will be sent again, from where the receiver then
// stands.
func (c *Client) Disconnect() {
	c.phase = down
	c.control, c.ready = nil, nil
	for handle, o := range c.handles {
		if o.state == broken {
			delete(c.handles, handle)
		}
		o.disconnect()
	}
}

// Established tells whether the peer has welcomed this connection.
func (c *Client) Established() bool { return c.phase >= ready }

// Draining tells whether the peer has said that it goes away.
func (c *Client) Draining() bool { return c.phase == draining }

// Output ends the use of the segments that the last Output returned. It returns the control frames to send, and as many segments as are ready, up to about limit bytes. Streams take
// turns, so that none waits for another. more tells that there is more to send.
func (c *Client) Output(segments []Segment, limit int) (control []byte, out []Segment, more bool) {
	c.yard.recycle() // the segments of the last Output were written
	control, c.control, c.pongs = c.control, nil, 0
	c.spoke = c.spoke || len(control) > 0 || len(c.ready) > 0
	for size := 0; len(c.ready) > 0 && c.phase == ready; {
		if size >= limit {
			return control, segments, true
		}
		o := c.ready[0]
		c.ready = c.ready[1:]
		o.queued = false
		s, ok := o.segment()
		if !ok {
			c.ask(o)
			continue
		}
		if c.maxFrame > 0 && len(s.Body) > c.maxFrame-publishOverhead {
			// Only a single message can be so large: smaller ones are cut at chunkBytes, which every peer takes.
			o.unsend(len(s.Body))
			c.refuse(o, s.First, &PeerError{code: wire.Code_CODE_LIMIT, Reason: "message larger than the peer's limit"})
			o.wake()
			c.schedule(o)
			continue
		}
		size += len(s.Body)
		segments = append(segments, s)
		if o.unsent() {
			c.schedule(o)
		}
	}
	if len(c.ready) == 0 {
		c.ready = nil // a drained queue would otherwise walk through its memory
	}
	if len(segments) > 0 { // a Want must not overtake the messages that used the credit it counts
		return control, segments, len(c.control) > 0
	}
	control, c.control = append(control, c.control...), nil
	return control, segments, false
}

// Due tells whether Output may have something to send.
func (c *Client) Due() bool { return len(c.control) > 0 || len(c.ready) > 0 }

// Untidy tells whether Output would let memory be used again.
func (c *Client) Untidy() bool { return len(c.yard.retired) > 0 }

// ask asks for credit where the stream has something to send and cannot.
func (c *Client) ask(o *Outbound) {
	if o.state != open || o.wanting {
		return
	}
	messages, bytes, least := o.want()
	switch {
	case messages == 0:
	case c.largest > 0 && least > c.largest: // there may never be credit for it
		c.refuse(o, o.sent, &PeerError{code: wire.Code_CODE_LIMIT, Reason: "message larger than the peer's limit"})
		o.skip()
		o.wake()
		c.schedule(o)
	default:
		c.want(o, messages, bytes, least)
		o.wanting = true
	}
}

func (c *Client) want(o *Outbound, messages, bytes, least uint64) {
	c.send(&wire.Frame{Body: &wire.Frame_Want{Want: &wire.Want{
		Handle: o.handle, Messages: messages, Bytes: bytes, LeastBytes: least, SeenMessages: o.credit.messages,
	}}})
	o.credit.giveBack()
}

// Tick does what is due at now: pings, time-outs of waiters, credit that idle streams give back. An error ends the
// connection. It wants to be called a few times a second.
func (c *Client) Tick(now time.Time, timeout error) error {
	idle := now.Sub(c.ticked) >= c.cfg.IdleCredit
	if idle {
		c.ticked = now
	}
	c.busy = len(c.yard.retired) > 0
	for _, o := range c.inOrder() {
		c.busy = c.busy || o.busy()
		o.expire(now, timeout)
		if o.state == unopened { // refused for a while
			c.schedule(o)
		}
		if messages, bytes := o.credit.left(); idle && o.state == open {
			if !o.touched && messages+bytes > 0 && !o.unsent() {
				c.want(o, 0, 0, 0)
			}
			if o.relay == nil && c.cfg.ForgetAfter > 0 && o.idleFor(now) >= c.cfg.ForgetAfter {
				c.forget(o)
			}
			o.touched = false
		}
		if o.relay == nil { // behind the look at who is idle: whoever waits is not
			o.release() // who waits for the process's budget is not told when it frees
		}
	}
	if c.phase == down {
		return nil
	}
	if c.unsendable != nil {
		return c.unsendable
	}
	if now.Sub(c.heard) >= c.cfg.DeadAfter {
		return ErrSilent
	}
	if c.spoke {
		c.spoke, c.spokeAt = false, now
	}
	// The peer ends a connection from which it hears nothing, so that silence of either side calls for a ping.
	silence := max(now.Sub(c.heard), now.Sub(c.spokeAt))
	if silence >= c.cfg.PingAfter && c.phase >= ready && now.Sub(c.pinged) >= c.cfg.PingAfter {
		c.pinged = now
		c.send(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{}}})
	}
	return nil
}

// Busy tells whether anything but silence may be due before long, as the last Tick saw it.
func (c *Client) Busy() bool { return c.busy }

// forget ends a stream that has been idle for long, at both ends.
func (c *Client) forget(o *Outbound) {
	c.send(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: o.handle}}})
	delete(c.handles, o.handle)
	delete(c.streams, o.Topic)
	o.state, o.cause = broken, ErrEnded
}

// Current returns the stream to use in o's place: o, unless it was forgotten while its user waited for room.
func (c *Client) Current(o *Outbound) *Outbound {
	if o.cause == ErrEnded {
		return c.Stream(o.Topic)
	}
	return o
}

// Interrupt ends every wait with cause. The messages stay, and are sent when there is a connection.
func (c *Client) Interrupt(cause error) {
	for _, o := range c.handles {
		o.interrupt(cause)
	}
}

// Abort breaks every stream: waiters get cause, nothing is sent any more.
func (c *Client) Abort(cause error) {
	for _, o := range c.handles {
		o.fail(cause)
	}
	c.phase, c.ready, c.control = down, nil, nil
}
