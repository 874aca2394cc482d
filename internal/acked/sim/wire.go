package sim

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// ErrAgain is what a Wire's Read returns when nothing more has arrived.
var ErrAgain = errors.New("sim: nothing more has arrived")

// encoder frames as the acked protocol does without TLS, for messages of any size that occurs here.
func encoder() session.Encoder {
	codec, err := framing.NewFixed(4, binary.BigEndian, session.MaxFrame(1<<20))
	if err != nil {
		panic(err) // a constant cannot be wrong
	}
	return session.Encoder{Codec: codec, Checksum: true}
}

// record is a frame on its way.
type record struct {
	end   int // offset behind it
	frame any
}

// pipe is one direction of a connection. Offsets count from its beginning: read <= allowed <= arrived <= written.
type pipe struct {
	chunks                          [][]byte
	head                            int // read of chunks[0]
	read, allowed, arrived, written int
	closed                          bool // nothing more comes behind written
	ends                            bool // and the reader may see that now
	frames                          []record
	stalled                         time.Time // until then nothing arrives
}

func (p *pipe) Read(dst []byte) (int, error) {
	n := min(len(dst), p.allowed-p.read)
	if n == 0 {
		if p.ends && p.closed && p.read == p.written {
			return 0, io.EOF
		}
		return 0, ErrAgain
	}
	for done := 0; done < n; {
		k := copy(dst[done:n], p.chunks[0][p.head:])
		done += k
		if p.head += k; p.head == len(p.chunks[0]) {
			p.chunks, p.head = p.chunks[1:], 0
		}
	}
	p.read += n
	return n, nil
}

// cut loses what is on its way behind at: the other side sees the end there, be it within a frame.
func (p *pipe) cut(at int) {
	p.closed = true
	if at >= p.written {
		return
	}
	p.written = at
	n := len(p.frames)
	for n > 0 && p.frames[n-1].end > at {
		n--
	}
	p.frames = p.frames[:n]
}

// idle tells that there is nothing to deliver.
func (p *pipe) idle() bool { return p.arrived == p.written && !p.closed }

// conn is a connection: the sender writes to up and reads from down.
type conn struct {
	w        *world
	id       int
	sender   *sender // nil: the sender has given it up, or is a stranger
	from     *sender // who dialed; nil: a stranger
	life     *life
	port     Port
	reader   *framing.Reader // the sender's
	up, down pipe
	shut     bool // the node closed it
	over     bool // the node's side has ended
	last     bool // the node's last word
	heard    time.Time
	claimed  bool // another connection took a stream of it over

	opens map[uint64]*outgoing // the sender's handles
	ins   map[uint64]*inflow   // the node's handles
	past  map[uint64]bool      // handles that streams have left
	fates map[uint64]fate      // what Opened has to say
}

// Read, Write and Close are the node's.
func (c *conn) Read(p []byte) (int, error) { return c.up.Read(p) }

func (c *conn) Write(p []byte) (int, error) {
	if c.shut && !c.last {
		return 0, net.ErrClosed
	}
	if c.down.closed {
		return 0, io.ErrClosedPipe
	}
	c.push(&c.down, p, c.said)
	return len(p), nil
}

func (c *conn) Close() error {
	c.shut = true
	return nil
}

// LastWord lets the node write once more though it has closed the connection.
func (c *conn) LastWord(flush func()) {
	c.last = true
	flush()
	c.last = false
}

// push puts whole frames on a pipe and shows each to tap.
func (c *conn) push(p *pipe, b []byte, tap func(frame any)) {
	b = append([]byte(nil), b...)
	c.w.trace.wire(b)
	p.chunks = append(p.chunks, b)
	for len(b) > 0 {
		size := 4 + int(binary.BigEndian.Uint32(b))
		payload, err := c.w.enc.Verify(b[4:size:size])
		if err != nil {
			c.w.fail(ruleProtocol, "conn %d: %v", c.id, err)
			return
		}
		frame, err := session.Decode(payload)
		if err != nil {
			c.w.fail(ruleProtocol, "conn %d: %v", c.id, err)
			return
		}
		b = b[size:]
		p.written += size
		p.frames = append(p.frames, record{p.written, frame})
		c.noteFrame("wrote ", frame)
		tap(frame)
	}
}

// arrive lets up to n bytes come out of a pipe; take reads them, frame by frame, and fails when the reader is through
// with the connection.
func (c *conn) arrive(p *pipe, n int, take func() error, seen func(frame any)) error {
	p.arrived += min(n, p.written-p.arrived)
	for len(p.frames) > 0 && p.frames[0].end <= p.arrived {
		f := p.frames[0]
		p.frames = p.frames[1:]
		p.allowed = f.end
		if err := take(); !errors.Is(err, ErrAgain) {
			return err
		}
		c.noteFrame("got ", f.frame)
		seen(f.frame)
		if c.w.violation != nil {
			return nil //nolint:nilerr // the world ends with it
		}
	}
	p.allowed, p.ends = p.arrived, true
	err := take()
	if p.ends = false; !errors.Is(err, ErrAgain) {
		return err
	}
	return nil
}

// deliverUp lets bytes reach the node.
func (c *conn) deliverUp(n int) {
	if c.over {
		return
	}
	if c.shut && c.w.dice.chance(500) { // what the node's reader holds already is still handled, or not
		c.end(net.ErrClosed)
		return
	}
	if err := c.arrive(&c.up, n, c.port.Read, c.heardBy); err != nil {
		c.judge(err)
		c.end(err)
	}
}

// end ends the node's side.
func (c *conn) end(err error) {
	if c.over {
		return
	}
	c.over = true
	c.w.note("port ends", c.id, 0, 0)
	c.port.End(err)
	c.life.detached(c)
	c.up.cut(c.up.arrived)
	c.down.closed = true
}

// deliverDown lets bytes reach the sender.
func (c *conn) deliverDown(n int) {
	if c.sender == nil {
		c.down.arrived, c.down.frames = c.down.written, nil
		return
	}
	if err := c.arrive(&c.down, n, c.sender.take, c.sender.heard); err != nil {
		c.sender.ended(err)
	}
}

// breaks cuts the connection: of what is on its way a part still arrives.
func (c *conn) breaks() {
	d := c.w.dice
	for _, p := range [...]*pipe{&c.up, &c.down} {
		at := p.arrived
		if d.chance(600) {
			at += d.n(p.written - p.arrived + 1)
		}
		p.cut(at)
	}
}

// gone tells that neither side has the connection any more.
func (c *conn) gone() bool { return c.over && c.sender == nil }
