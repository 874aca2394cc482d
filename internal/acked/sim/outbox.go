package sim

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// outbox is an outbox as its contract describes it: what was synced survives, what was settled may come back, and what
// was neither is lost whole or stays whole.
type outbox struct {
	w         *world
	publisher [16]byte
	secret    [16]byte
	epoch     uint64
	lineage   []session.Incarnation
	owner     *process
	streams   []*boxStream
	gathering bool // something was appended since the last sync
}

// boxStream is one stream of an outbox. A predecessor that still runs has a view of its own.
type boxStream struct {
	box     *outbox
	flow    *stream
	durable uint64            // sequence behind what was synced
	settled session.Watermark // as the process knows
	saved   session.Watermark // as the disk knows
}

// relay delivers one stream of an outbox over one sender.
type relay struct {
	sender  *sender
	s       *boxStream
	head    *head
	o       *session.Outbound
	retry   time.Time // after the peer refused it
	fetched []*message
	first   uint64
	gen     uint64
}

func (w *world) newOutbox() *outbox {
	return &outbox{w: w, publisher: w.dice.bytes16(), secret: w.dice.bytes16()}
}

// open begins the outbox's next epoch in a process.
func (b *outbox) open(p *process) {
	b.epoch++
	own := session.Incarnation{Epoch: b.epoch, ID: b.publisher}
	binary.BigEndian.PutUint64(own.ID[8:], b.epoch)
	b.lineage = append(b.lineage[:len(b.lineage):len(b.lineage)], own)
	b.owner, p.box = p, b
	for _, s := range b.streams {
		s.settled = s.saved.Clone()
		b.deliver(p, s)
	}
}

// stream finds or makes the stream to a topic.
func (b *outbox) stream(l *sender, topic string) *boxStream {
	for _, s := range b.streams {
		if s.flow.to == l.to && s.flow.id.Topic == topic {
			return s
		}
	}
	id := StreamID{b.publisher, uint64(len(b.streams)) + 1, topic}
	s := &boxStream{box: b, durable: 1, flow: b.w.newFlow(l.to, id, b.secret)}
	s.flow.box = s
	b.streams = append(b.streams, s)
	b.deliver(b.owner, s)
	return s
}

// append stores messages. They are confirmed with the next sync.
func (b *outbox) append(l *sender, topic string) {
	w, s := b.w, b.stream(l, topic)
	n := 1 + w.dice.n(w.shape.batch)
	for range n {
		s.flow.add(w.newMessage())
	}
	b.gathering = true
	w.note("append", l.proc.n, l.to.n, n)
}

// sync makes durable what was appended.
func (b *outbox) sync() {
	if !b.gathering {
		return
	}
	b.gathering = false
	for _, s := range b.streams {
		s.durable = uint64(len(s.flow.msgs)) + 1
		s.saved = s.settled.Clone()
	}
	b.w.note("sync", int(b.epoch), 0, 0)
}

// crash loses what was not synced, or keeps it though its Publish has not returned.
func (b *outbox) crash() {
	w := b.w
	if b.gathering && w.dice.chance(400) {
		b.sync()
	}
	b.gathering = false
	for _, s := range b.streams {
		lost := len(s.flow.msgs) - int(s.durable-1)
		w.unpublished += lost
		w.seen["unsynced messages lost"] += lost
		s.flow.msgs = s.flow.msgs[:s.durable-1]
	}
	b.owner.box, b.owner = nil, nil
}

// view copies what a predecessor has in its memory.
func (s *boxStream) view() *boxStream {
	v := *s
	v.settled = s.settled.Clone()
	return &v
}

// deliver begins a stream's delivery.
func (b *outbox) deliver(p *process, s *boxStream) {
	for _, l := range p.senders {
		if l.to == s.flow.to {
			c := &relay{sender: l, s: s}
			l.relays = append(l.relays, c)
			c.begin(b.epoch)
		}
	}
}

func (c *relay) begin(epoch uint64) {
	p, b := c.sender.proc, c.s.box
	base := c.s.settled.Next()
	c.head = &head{flow: c.s.flow, proc: p, known: c.s.settled.Clone(), next: base}
	c.head.known.Add(0, base-1)
	who := session.Identity{Publisher: b.publisher, Secret: b.secret, Epoch: epoch, Lineage: b.lineage[:epoch]}
	c.o = c.sender.client.StartFetched(who, c.s.flow.id.Stream, c.s.flow.id.Topic, base, c.s.durable)
	c.head.out = c.o
	p.keep(c.head)
	c.fetched = nil
	if c.s.durable > base {
		c.sender.client.Announce(c.o, c.s.durable)
	}
}

// end removes a relay from its sender.
func (c *relay) end() {
	c.sender.client.EndFetched(c.o)
	c.sender.proc.forget(c.head)
	c.o = nil
}

// step does what a relay does next: hand over what was read, read, or wait for more.
func (c *relay) step(epoch uint64) {
	w := c.sender.w
	if c.o == nil || c.o.Err() != nil {
		if c.o != nil {
			c.end()
			c.retry = w.now.Add(5 * time.Second)
		}
		if !w.now.Before(c.retry) && !c.sender.proc.old {
			c.begin(epoch)
		}
		return
	}
	if c.fetched != nil {
		c.feed()
		return
	}
	from, gen, ok := c.o.NextFetch()
	if !ok {
		if next, quiet := c.o.Idle(); quiet && next < c.s.durable {
			c.sender.client.Announce(c.o, next+1)
		}
		return
	}
	c.read(from, gen, 1+w.dice.n(40))
}

// read fetches a run of messages that are not settled.
func (c *relay) read(from, gen uint64, n int) {
	first, last := c.s.settled.Hole(from)
	last = min(last, c.s.durable-1, first+uint64(n)-1)
	if first > last {
		return
	}
	c.first, c.gen = first, gen
	c.fetched = c.s.flow.msgs[first-1 : last]
}

func (c *relay) feed() {
	var bodies [][]byte
	for _, m := range c.fetched {
		bodies = append(bodies, m.body(nil))
	}
	c.sender.client.Feed(c.o, c.gen, c.first, bodies)
	c.sender.w.note("feed", c.sender.proc.n, int(c.first), len(c.fetched))
	c.fetched = nil
}

// takeEvents settles what the relays have learnt.
func (l *sender) takeEvents() {
	for _, o := range l.client.WithEvents() {
		i := slices.IndexFunc(l.relays, func(c *relay) bool { return c.o == o })
		events := o.Events()
		if i < 0 {
			continue
		}
		c := l.relays[i]
		for _, e := range events {
			if e.First == 0 {
				l.w.seen["relays refused"]++
				if errors.Is(e.Err, session.ErrCopied) && !l.proc.old {
					l.w.fail(ruleEpoch, "flow %d: an outbox takes itself for a copy: %v", c.s.flow.n, e.Err)
				}
				continue
			}
			if e.Err != nil && !c.head.known.Has(e.First) {
				l.refused(c.head, e.First)
			}
			if !c.head.known.Covers(e.First, e.Last) {
				l.w.fail(ruleAcked, "flow %d: %d to %d leave the outbox, and were not settled", c.s.flow.n, e.First, e.Last)
			}
			c.s.settled.Add(e.First, e.Last)
			if e.Err != nil {
				l.client.ConfirmRefused(c.o, e.First)
			}
		}
	}
}
