package session

import (
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// ClientConfig sets up a Client. All fields are required but NextStream, ForgetAfter, MoveAfter, Agent,
// Clock and Observe.
type ClientConfig struct {
	Identity    Identity
	NextStream  func() uint64    // returns a number that no other stream of the Identity has; nil: this is its only Client
	Window      Window           // of each stream
	MaxFrame    int              // largest frame payload accepted, in bytes
	PingAfter   time.Duration    // of silence
	DeadAfter   time.Duration    // of silence, the connection ends
	ForgetAfter time.Duration    // of idleness, a stream is ended at both ends; 0: never
	MoveAfter   time.Duration    // of silence, streams may leave the peer without its answer; not positive: they never move
	IdleCredit  time.Duration    // a stream that sent nothing for so long returns its credit
	Agent       string           // names the software to the peer
	Clock       func() time.Time // says how old messages are, in Stats; nil: that is not known
	Observe     bool             // collect SettledRuns, and know ages exactly
}

// phase is how far a connection has come.
type phase int

const (
	disconnected phase = iota
	greeting           // Hello was sent
	established        // Welcome came
	draining           // Goaway came: nothing is sent but answers
)

// Client is the sending side of one destination: its streams, which outlive connections, and the state of the current
// connection. It does no I/O and knows no clock: the caller passes received frames to Receive, sends what Output
// returns, and calls Tick. It is not safe for concurrent use.
type Client struct {
	cfg        ClientConfig
	token      []byte
	streams    map[string]*Outbound // by name; without the fetched ones
	handles    map[uint64]*Outbound
	order      []*Outbound // oldest first; some are not in handles any more: see inOrder
	lastHandle uint64

	mostStreams, mostHandles int           // for buffers.Shrink
	presence                 flow.Presence // of the peer

	// The current connection.
	phase        phase
	enc          Encoder
	peerMaxEntry int         // largest message that the peer accepts, with its tag and length, in bytes
	sendQueue    []*Outbound // streams that may have something to send
	control      []byte      // encoded control frames to send
	replies      int         // of these, answers that the peer can provoke
	unsendable   error       // a control frame could not be encoded
	lastHeard    time.Time
	lastSent     time.Time
	lastPing     time.Time

	latest     *Outbound // one of streams, by latestName; or nil
	latestName string

	peer   peerMoves
	groups groupsSeen

	asks          int // why a stream has no credit, in this Tick
	lastIdleTick  time.Time
	longest       longest
	sentSinceTick bool
	busy          bool // as the last Tick saw it
	refused       []Refused
	withEvents    []*Outbound          // fetched streams with Events
	released      map[uint64]*Outbound // by handle: the receiver answers for them, and may have refused messages before it knew
	freeLater     deferredFree

	now       int64 // what the Client heard last of the time, in ns since 1970; only for ages
	counting  counting
	spareRuns []SettledRun // memory of counting.runs
}

// NewClient returns a Client without a connection.
func NewClient(cfg ClientConfig) *Client {
	c := &Client{
		cfg: cfg, streams: map[string]*Outbound{}, handles: map[uint64]*Outbound{}, released: map[uint64]*Outbound{},
		presence: flow.Unknown,
	}
	c.counting.observe = cfg.Observe
	if c.cfg.NextStream == nil {
		c.cfg.NextStream = func() uint64 { return c.lastHandle }
	}
	return c
}

// Stream returns the stream with a name, which is a topic, or what Ephemeral returned. It makes one if there is none.
func (c *Client) Stream(name string) *Outbound {
	if c.latest != nil && c.latestName == name { // most senders have one, and are asked for it with each message
		return c.latest
	}
	o := c.streams[name]
	if o == nil {
		c.lastHandle++
		o = newOutbound(c.cfg.Identity, c.cfg.NextStream(), c.lastHandle, TopicOf(name), c.cfg.Window, 1)
		o.freeLater, o.ephemeral = &c.freeLater, isEphemeral(name)
		o.setPresence(c.presence)
		c.streams[name] = o
		c.register(o)
	}
	c.latest, c.latestName = o, name
	return o
}

// name is what Stream returns the stream for.
func (o *Outbound) name() string {
	if o.ephemeral {
		return Ephemeral(o.Topic)
	}
	return o.Topic
}

// remove forgets a stream that has ended.
func (c *Client) remove(o *Outbound) {
	delete(c.handles, o.handle)
	c.handles = buffers.Shrink(c.handles, &c.mostHandles)
	if o.fetched == nil && !o.unnamed {
		delete(c.streams, o.name())
		c.latest = nil
		c.streams = buffers.Shrink(c.streams, &c.mostStreams)
	}
}

func (c *Client) register(o *Outbound) {
	o.counting = &c.counting
	c.handles[o.handle] = o
	c.order = append(c.order, o)
}

// inOrder returns the streams from the oldest to the newest, so that a simulation does not depend on the order of a
// map. Streams may end while the caller iterates.
func (c *Client) inOrder() []*Outbound {
	c.order = slices.DeleteFunc(c.order, func(o *Outbound) bool { return c.handles[o.handle] != o })
	if cap(c.order) > 8*len(c.order)+64 {
		c.order = slices.Clone(c.order)
	}
	return c.order
}

// Find returns the stream with a name, or nil.
func (c *Client) Find(name string) *Outbound { return c.streams[name] }

// Pending is the number of messages that are not settled.
func (c *Client) Pending() (n int) {
	for _, o := range c.handles {
		n += o.unsettled()
	}
	return n
}

// Unreceived is the number of messages that the receiver is not known to have received.
func (c *Client) Unreceived() (n int) {
	for _, o := range c.handles {
		n += o.Unreceived()
	}
	return n
}

// Await registers w for messages of the stream that were enqueued.
func (c *Client) Await(o *Outbound, w *Waiter) { o.await(w) }

// SetToken sets the token that the next Connect sends.
func (c *Client) SetToken(token []byte) { c.token = token }

// Connect begins a new connection with Hello.
func (c *Client) Connect(enc Encoder, now time.Time) {
	c.enc, c.phase, c.lastHeard, c.lastSent, c.unsendable = enc, greeting, now, now, nil
	c.control, c.sendQueue, c.replies = nil, nil, 0
	c.sendControl(&wire.Frame{Body: &wire.Frame_Hello{Hello: &wire.Hello{
		Version: Version, MaxFrame: uint64(c.cfg.MaxFrame), Token: c.token, Agent: c.cfg.Agent, Features: c.features(),
	}}})
}

// Disconnect ends the connection. After the next one, each stream resumes at the first message that the receiver lacks.
func (c *Client) Disconnect() {
	c.phase = disconnected
	c.control, c.sendQueue = nil, nil
	c.disconnectMoves()
	c.Unreachable()
	for handle, o := range c.handles {
		if o.state == broken {
			delete(c.handles, handle)
		}
		o.disconnect()
	}
}

// Established tells whether the peer has welcomed this connection.
func (c *Client) Established() bool { return c.phase >= established }

// Draining tells whether the peer has announced that it will close this connection.
func (c *Client) Draining() bool { return c.phase == draining }

// setPresence tells the budget whether the peer is there: what waits for absent peers has a bound of its own.
func (c *Client) setPresence(p flow.Presence) {
	c.presence = p
	for _, o := range c.handles {
		o.setPresence(p)
	}
}

// Unreachable notes that the peer takes nothing any more, or that an attempt to connect has failed. If there is nothing
// for it, the next message shows whether it is there.
func (c *Client) Unreachable() {
	p := flow.Unknown
	if c.Pending() > 0 {
		p = flow.Absent
	}
	c.setPresence(p)
}

// forget ends an idle stream, at both ends.
func (c *Client) forget(o *Outbound) {
	c.sendControl(&wire.Frame{Body: &wire.Frame_Release{Release: &wire.Release{Handle: o.handle}}})
	c.remove(o)
	o.state, o.cause = broken, ErrEnded
}

// EndStream ends a stream of StartStream of which everything is settled.
func (c *Client) EndStream(o *Outbound) {
	if o.state == open && c.phase >= established {
		c.forget(o)
		return
	}
	c.remove(o)
	o.fail(ErrEnded)
}

// Ended tells whether the stream's own side has ended it, as it was idle.
func (o *Outbound) Ended() bool { return o.cause == ErrEnded } //nolint:errorlint // set by this package, never wrapped

// ReleaseDelivered ends, at both ends, the streams of which the receiver has everything, but for fetched ones: it
// answers for what is not settled from then on, but for what it has refused by then. Their Waiters get cause.
// ReleaseDelivered tells whether there were any. Abort follows.
func (c *Client) ReleaseDelivered(cause error) (released bool) {
	for _, o := range c.inOrder() {
		if o.state != open || o.fetched != nil || c.Undelivered(o) > 0 {
			continue
		}
		c.forget(o)
		o.interrupt(cause)
		o.cause = cause
		c.released[o.handle] = o
		released = true
	}
	return released
}

// Current returns the stream to use in o's place: another one if o was forgotten while its user waited for room.
func (c *Client) Current(o *Outbound) *Outbound {
	if o.Ended() && !o.unnamed {
		return c.Stream(o.name())
	}
	return o
}

// Interrupt finishes every Waiter with cause, and wakes the callers that wait for room. The messages stay.
func (c *Client) Interrupt(cause error) {
	for _, o := range c.handles {
		o.interrupt(cause)
	}
}

// Abort breaks every stream and ends the connection. Every Waiter gets cause.
func (c *Client) Abort(cause error) {
	for _, o := range c.handles {
		o.fail(cause)
	}
	for _, o := range c.released {
		o.fail(cause)
	}
	clear(c.released)
	c.phase, c.sendQueue, c.control = disconnected, nil, nil
}
