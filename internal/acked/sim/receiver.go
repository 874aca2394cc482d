package sim

import (
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// receiver is a subscriber's process, through all of its lives.
type receiver struct {
	w     *world
	n     int
	cfg   NodeConfig
	plans []*topicPlan
	store *store // nil: nothing survives
	life  *life  // nil: it is down
	lives int
}

// topicPlan is what a receiver's configuration says of a topic.
type topicPlan struct {
	name   string
	groups []groupPlan
}

type groupPlan struct {
	name    string // empty: of one subscription
	members int
	flights int // messages that a member handles at a time
	keyed   bool
}

// life is one life of a receiver.
type life struct {
	recv   *receiver
	n      int
	node   Node
	topics map[string]*rtopic
	order  []*rtopic
	flows  map[*stream]*inflow
	bound  map[[16]byte]*binding

	broken bool // its store failed: nothing is acked any more
	killed bool // it dies with this step
	leaves bool // it has said goodbye
}

// binding is what a life knows of a publisher.
type binding struct {
	epoch  uint64
	secret [16]byte
}

// rtopic is a topic in one life.
type rtopic struct {
	life   *life
	plan   *topicPlan
	name   string
	t      *dispatch.Topic // nil until it has a group
	groups []*group        // by bit
	alive  uint8
	vacant *group
	seats  []*seat
	stuck  bool // nothing is handled

	held, credit amount
}

func (w *world) start(r *receiver) {
	r.lives++
	l := &life{
		recv: r, n: r.lives, topics: map[string]*rtopic{}, flows: map[*stream]*inflow{},
		bound: map[[16]byte]*binding{},
	}
	r.life = l
	if r.store != nil {
		r.cfg.Store = r.store
	}
	l.node = w.newNode(r.cfg)
	for _, p := range r.plans {
		rt := &rtopic{life: l, plan: p, name: p.name}
		l.topics[p.name] = rt
		l.order = append(l.order, rt)
		for i := range p.groups {
			for range p.groups[i].members {
				rt.seats = append(rt.seats, &seat{rt: rt, plan: &p.groups[i]})
			}
		}
		for _, s := range rt.seats {
			if w.dice.chance(700) {
				w.join(s)
			}
		}
	}
	w.note("receiver starts", r.n, r.lives, 0)
}

// kill ends a life at once: what was not durable is lost.
func (w *world) kill(r *receiver) {
	l := r.life
	w.note("receiver dies", r.n, l.n, 0)
	w.seen["receivers killed"]++
	r.life = nil
	for _, c := range w.conns {
		if c.life == l && !c.over {
			c.over = true
			c.breaks()
		}
	}
	w.forgetSeats(l)
}

// leave closes a receiver: it drains, tells what it can, and ends.
func (w *world) leave(r *receiver) {
	l := r.life
	if !l.leaves {
		w.note("receiver drains", r.n, l.n, 0)
		w.seen["receivers closed"]++
		l.leaves = true
		l.node.Drain()
		return
	}
	for _, c := range w.conns {
		if c.life == l && !c.over {
			c.port.Flush()
			c.end(nil)
		}
	}
	l.node.Close()
	w.note("receiver closes", r.n, l.n, 0)
	r.life = nil
	w.forgetSeats(l)
}

// open follows an Open that the node has handled.
func (l *life) open(c *conn, f *wire.Open) {
	w := l.recv.w
	id := StreamID{[16]byte(f.Publisher), f.Stream, f.Topic}
	fl := w.flows[flowKey{l.recv.n, id}]
	found := lookup{}
	if s := l.recv.store; s != nil && (fl == nil || l.flows[fl] == nil) {
		found, s.last = s.last, lookup{}
		if found.err != nil {
			c.fates[f.Handle] = refusedForNow
			return
		}
	}
	if !l.admit(id.Publisher, f, found) {
		c.fates[f.Handle] = fenced
		w.seen["opens fenced"]++
		return
	}
	if fl == nil {
		w.fail(ruleEpoch, "conn %d: a stream that no process has was let through", c.id)
		return
	}
	if l.broken {
		c.fates[f.Handle] = refusedForNow
		return
	}
	c.fates[f.Handle] = opens
	in := l.flows[fl]
	if in == nil {
		marks := session.NewWatermark(f.Base)
		for _, r := range found.state.Settled {
			marks.Add(r.First, r.Last)
		}
		in = &inflow{flow: fl, rt: l.topics[f.Topic], next: marks.Next(), knew: map[string]session.Watermark{}}
		for group, ranges := range found.state.Groups {
			var known session.Watermark
			for _, r := range ranges {
				known.Add(r.First, r.Last)
			}
			in.knew[group] = known
		}
		l.flows[fl] = in
	}
	l.attach(in, c, f)
}

// unbind follows the end of a publisher's last stream: nothing is known of it any more.
func (l *life) unbind(publisher [16]byte) {
	for f := range l.flows {
		if f.id.Publisher == publisher {
			return
		}
	}
	delete(l.bound, publisher)
}

// admit tells whether an Open may pass, and fences what is older.
func (l *life) admit(publisher [16]byte, f *wire.Open, found lookup) bool {
	b := l.bound[publisher]
	if b == nil {
		b = &binding{f.Epoch, [16]byte(f.Secret)}
		if found.state.Epoch > 0 {
			b = &binding{found.state.Epoch, found.state.Secret}
		}
		l.bound[publisher] = b
	}
	before := b.epoch
	if found.state.Epoch > b.epoch { // an earlier life has heard more
		b.epoch, b.secret = found.state.Epoch, found.state.Secret
	}
	passes := b.secret == [16]byte(f.Secret) && f.Epoch >= b.epoch
	if passes {
		b.epoch = f.Epoch
	}
	if b.epoch > before {
		l.fence(publisher, b.epoch)
	}
	return passes
}

// fence takes the streams of older epochs off their connections.
func (l *life) fence(publisher [16]byte, epoch uint64) {
	for fl, in := range l.flows {
		if fl.id.Publisher == publisher && in.conn != nil && in.epoch < epoch {
			in.conn.claimed = true
			in.detach()
			l.recv.w.seen["streams fenced"]++
		}
	}
}

func (l *life) attach(in *inflow, c *conn, f *wire.Open) {
	if in.conn != nil {
		if in.conn != c {
			in.conn.claimed = true
			l.recv.w.seen["connections taken over"]++
		}
		for h, other := range in.conn.ins {
			if other == in {
				delete(in.conn.ins, h)
				in.conn.past[h] = true
			}
		}
		in.detach()
	}
	in.conn, in.epoch = c, f.Epoch
	in.next = max(in.next, f.Base)
	c.ins[f.Handle] = in
}

// detached follows the end of a connection.
func (l *life) detached(c *conn) {
	for _, in := range c.ins {
		if in.conn == c {
			in.detach()
		}
		// The topic never had a group: nothing was received, and nothing is remembered. A connection that had lost the
		// flow to another may end long after that one: what was opened anew meanwhile is not forgotten with it.
		if in.conn == nil && in.rt.unused() && l.flows[in.flow] == in {
			delete(l.flows, in.flow)
		}
	}
}
