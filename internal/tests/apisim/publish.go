package apisim

import (
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// lane publishes to one topic, one call after the other.
type lane struct {
	name  string
	next  int
	queue chan func()
}

// destination is a topic as a publisher knows it.
type destination struct {
	topic string
	to    []int // the receivers that it may go to

	routed bool // by the route of a program with moves
}

// destination is the nth topic of a publisher.
func (w *world) destination(p *publisher, n int) destination {
	if p.pub != nil {
		return destination{topic: fmt.Sprintf("t%d", n%w.p.Shape.Topics), to: []int{p.life.within.of.n}}
	}
	if p.plan.Plain {
		return destination{topic: hogAddress}
	}
	if w.routes != nil {
		return destination{"t0", w.everywhere(), true}
	}
	if p.plan.Logical && n%3 == 0 {
		var all []int
		for i := range w.receivers {
			all = append(all, i)
		}
		if !w.p.Shape.Routes {
			all = all[:1]
		}
		return destination{topic: "t0", to: all}
	}
	r := w.receivers[n%len(w.receivers)]
	names := r.topics(p.plan.Ephemeral)
	return destination{topic: w.address(r.n) + "/" + names[n/len(w.receivers)%len(names)], to: []int{r.n}}
}

// publish has a lane publish n messages in one call, and waits for that with wait.
func (w *world) publish(p *publisher, d destination, n, size int, wait bool) {
	w.mu.Lock()
	l := p.lanes[d.topic]
	if l == nil {
		l = &lane{name: p.name() + ">" + d.topic, queue: make(chan func(), 10000)}
		p.lanes[d.topic] = l
		go func() {
			for f := range l.queue {
				f()
			}
		}()
	}
	if l.queue == nil {
		w.mu.Unlock()
		return
	}
	done := make(chan struct{})
	select {
	case l.queue <- func() {
		defer close(done)
		w.publishNow(p, d, l, n, size)
	}:
	default: // to wait for room would hold mu, which is needed to make it
		w.violatedLocked(13, "the simulation itself fails: a lane is full", "%s", l.name)
		close(done)
	}
	w.mu.Unlock()
	if wait {
		<-done
	}
}

// publishNow is one call of Publish.
func (w *world) publishNow(p *publisher, d destination, l *lane, n, size int) {
	var ms []*msg
	var out []*message.Message
	for range n {
		m, x := w.newMessage(p, d, l.name, size)
		ms, out = append(ms, m), append(out, x)
	}
	w.mu.Lock()
	for _, m := range ms {
		l.next++
		m.seq, m.began = l.next, time.Now()
		m.served = w.hasGroupLocked(m)
	}
	w.mu.Unlock()
	bound := p.plan.PublishTimeout + w.marshaling(n)
	began := time.Now()
	err := w.timed(p.life.proc, p.call("Publish"), bound, func() error { return p.api.Publish(d.topic, out...) })
	w.conclude(ms, err, publishErrors)
	w.note("%s published m%d..%d (%d bytes) to %s at level %d: %v", p.name(), ms[0].id, ms[len(ms)-1].id, size, d.topic, p.plan.Confirm, err)
	if p.plan.Plain || p.life.proc.dead.Load() {
		return
	}
	w.checkPublished(p, ms, err)
	if d.routed {
		w.checkRouted(p, ms, began, err)
	}
}

// hasGroupLocked reports whether there is a subscription to a message's topic now. The caller must hold mu.
func (w *world) hasGroupLocked(m *msg) bool {
	return len(m.to) == 1 && w.receivers[m.to[0]].life != nil && w.servedLocked(m)
}
