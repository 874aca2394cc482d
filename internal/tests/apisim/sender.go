package apisim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// sender is a publishing side through all of its processes.
type sender struct {
	n        int
	plan     senderPlan
	dir      string // of its outbox
	copied   string // a copy of that
	copiedAt time.Time
	restored time.Time // when the copy took its place
	boxes    int
	life     *senderLife
}

// senderLife is one process of a sender.
type senderLife struct {
	of      *sender
	n       int
	proc    *process
	within  *life   // the receiver's, whose Manager or PubSub it uses
	manager manager // nil: each publisher has its own
	box     box
	pubs    []*publisher
	ended   time.Time
	how     string // "killed" or "closed"
	counted int    // undelivered messages, as its Closes said
}

// boxed tells whether its messages are on disk.
func (l *senderLife) boxed() bool { return l.box != nil }

// publisher is one Publisher of a process.
type publisher struct {
	life  *senderLife
	n     int
	plan  publisherPlan
	api   api
	pub   both // the PubSub that it is a part of
	lanes map[string]*lane

	closing, closed time.Time
	closeErr        error
}

func (p *publisher) name() string { return fmt.Sprintf("s%d.%d.p%d", p.life.of.n, p.life.n, p.n) }

// call is how a call is named.
func (p *publisher) call(name string) string {
	if p.plan.Plain {
		return name + " (plain wire)"
	}
	return name
}

func (p *publisher) sent() *senderLife { return p.life }

// lane publishes to one topic, one call after the other.
type lane struct {
	name  string
	next  int
	queue chan func()
}

// startSender begins a life. A sender that shares a receiver's Manager lives with it.
func (w *world) startSender(s *sender) {
	n := 0
	if s.life != nil {
		n = s.life.n + 1
	}
	l := &senderLife{of: s, n: n}
	l.proc = &process{name: fmt.Sprintf("s%d.%d", s.n, n)}
	var err error
	switch {
	case s.plan.With >= 0:
		r := w.receivers[s.plan.With]
		if r.life == nil || r.life.ended() || r.plan.Kind == private {
			return
		}
		l.within, l.proc, l.manager = r.life, r.life.proc, r.life.manager
	case s.plan.Shared:
		if l.manager, err = w.newManager(l.proc, 0, nil, nil); err != nil {
			panic(err)
		}
	}
	if s.plan.Outbox {
		if l.box, err = openBox(s.dir); err != nil {
			w.violated(8, "an outbox cannot be opened again", "%v", err)
			return
		}
	}
	w.mu.Lock()
	s.life = l
	w.mu.Unlock()
	for i, plan := range s.plan.Pubs {
		p := &publisher{life: l, n: i, plan: plan, lanes: map[string]*lane{}}
		if l.within != nil && l.within.ps != nil {
			p.api, p.pub = l.within.ps, l.within.ps
			p.plan = l.within.pubPlan
			w.mu.Lock()
			l.within.local = p
			w.mu.Unlock()
		} else if p.api, err = w.newPublisher(p); err != nil {
			panic(err)
		}
		w.mu.Lock()
		l.pubs = append(l.pubs, p)
		w.mu.Unlock()
		if p.pub != nil {
			break
		}
	}
	w.note("sender %s begins", l.proc.name)
}

// destination is a topic as a publisher knows it.
type destination struct {
	topic string
	to    []int // the receivers that it may go to
}

// destination is the nth topic of a publisher.
func (w *world) destination(p *publisher, n int) destination {
	if p.pub != nil {
		return destination{fmt.Sprintf("t%d", n%w.p.Shape.Topics), []int{p.life.within.of.n}}
	}
	if p.plan.Plain {
		return destination{hogAddress, nil}
	}
	if p.plan.Logical && n%3 == 0 {
		var all []int
		for i := range w.receivers {
			all = append(all, i)
		}
		if !w.p.Shape.Routes {
			all = all[:1]
		}
		return destination{"t0", all}
	}
	r := w.receivers[n%len(w.receivers)]
	names := r.topics(p.plan.Ephemeral)
	return destination{w.address(r.n) + "/" + names[n/len(w.receivers)%len(names)], []int{r.n}}
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
	l.queue <- func() {
		defer close(done)
		w.publishNow(p, d, l, n, size)
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
		m.served = w.hasGroup(m)
	}
	w.mu.Unlock()
	bound := p.plan.PublishTimeout
	if w.p.Shape.Rude == "marshal-slow" { // the marshaler is the caller's own computation
		bound += time.Duration(n) * slowMarshal
	}
	err := w.timed(p.life.proc, p.call("Publish"), bound, func() error { return p.api.Publish(d.topic, out...) })
	w.conclude(ms, err, publishErrors)
	w.note("%s published m%d..%d (%d bytes) to %s at level %d: %v", p.name(), ms[0].id, ms[len(ms)-1].id, size, d.topic, p.plan.Confirm, err)
	if p.plan.Plain || p.life.proc.dead.Load() {
		return
	}
	w.checkPublished(p, ms, err)
}

// hasGroup tells that somebody subscribes to a message's topic now. mu is held.
func (w *world) hasGroup(m *msg) bool {
	return len(m.to) == 1 && w.receivers[m.to[0]].life != nil && w.served(m)
}

// endLanes ends the lanes' goroutines when what is queued is done.
func (w *world) endLanes(p *publisher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range p.lanes {
		if l.queue != nil {
			close(l.queue)
			l.queue = nil
		}
	}
}

// flush calls Flush or Drain.
func (w *world) flush(p *publisher, drain bool, timeout time.Duration) {
	name, f := "Flush", p.api.Flush
	if drain {
		name, f = "Drain", p.api.Drain
	}
	w.mu.Lock()
	var before []*msg
	for _, m := range w.messages {
		if m.from == p && (m.outcome == okay || m.outcome == unknown) && !p.plan.Plain {
			before = append(before, m)
		}
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := w.timed(p.life.proc, name, timeout, func() error { return f(ctx) })
	w.note("%s %s: %v", p.name(), name, err)
	if err == nil && !p.life.proc.dead.Load() {
		w.checkFlushed(p, name, before)
	}
}

// closePublisher closes one publisher; n calls side by side.
func (w *world) closePublisher(p *publisher, n int) {
	if p.pub != nil {
		return // it ends with its PubSub
	}
	w.mu.Lock()
	first := p.closing.IsZero()
	if first {
		p.closing = time.Now()
	}
	w.mu.Unlock()
	if !first {
		return
	}
	bound := p.plan.CloseTimeout
	if w.p.Shape.Rude == "marshal-slow" {
		bound += 40 * slowMarshal
	}
	err := w.closeAll(p.life.proc, p.call("Publisher.Close"), n, bound, p.api.Close)
	w.mu.Lock()
	p.closed, p.closeErr = time.Now(), err
	p.life.counted += undelivered(err)
	w.noteLocked("%s closed: %v", p.name(), err)
	w.mu.Unlock()
	w.endLanes(p)
}

// closeSender closes a process's publishers, then its Manager and outbox.
func (w *world) closeSender(l *senderLife, n int) {
	if l.within != nil || !w.beginEnd(l, "closed") {
		return
	}
	for _, p := range l.pubs {
		w.closePublisher(p, n)
	}
	if l.manager != nil {
		err := w.closeAll(l.proc, "Manager.Close", n, managerCloseTimeout, l.manager.Close)
		w.mu.Lock()
		l.counted += undelivered(err)
		w.noteLocked("Manager of %s closed: %v", l.proc.name, err)
		w.mu.Unlock()
	}
	if l.box != nil {
		if err := w.timed(l.proc, "Outbox.Close", 5*time.Second, l.box.Close); err != nil {
			w.note("outbox of %s closed: %v", l.proc.name, err)
		}
	}
	w.mu.Lock()
	l.ended = time.Now()
	w.mu.Unlock()
}

// managerCloseTimeout is what Manager.Close has.
const managerCloseTimeout = 5 * time.Second

// beginEnd claims the end of a life.
func (w *world) beginEnd(l *senderLife, how string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.how != "" {
		return false
	}
	l.how = how
	return true
}

// killSender ends a process as kill -9 does: its files are as they were at that moment.
func (w *world) killSender(l *senderLife, silent bool) {
	if l.within != nil || !w.beginEnd(l, "killed") {
		return
	}
	s := l.of
	if l.box != nil {
		synctest.Wait() // nobody writes
		s.boxes++
		dir := filepath.Join(w.dir, fmt.Sprintf("s%d-%d", s.n, s.boxes))
		if err := os.CopyFS(dir, os.DirFS(s.dir)); err != nil {
			panic(err)
		}
		s.dir = dir
	}
	w.net.kill(l.proc, silent)
	w.mu.Lock()
	l.ended = time.Now()
	w.noteLocked("sender %s is killed", l.proc.name)
	for _, m := range w.messages {
		if m.from.life == l && m.outcome == pending {
			m.outcome = unknown
		}
	}
	w.mu.Unlock()
	go w.buryPublishers(l) // what is left of it does not matter, but must go
}

func (w *world) buryPublishers(l *senderLife) {
	for _, p := range l.pubs {
		_ = p.api.Close()
		w.endLanes(p)
	}
	if l.manager != nil {
		_ = l.manager.Close()
	}
	if l.box != nil {
		_ = l.box.Close()
	}
}

// copyBox keeps a copy of an outbox's directory; restoreBox has it take its place.
func (w *world) copyBox(s *sender) {
	if s.life == nil || s.life.box == nil || s.copied != "" {
		return
	}
	synctest.Wait()
	s.boxes++
	s.copied, s.copiedAt = filepath.Join(w.dir, fmt.Sprintf("s%d-copy%d", s.n, s.boxes)), time.Now()
	if err := os.CopyFS(s.copied, os.DirFS(s.dir)); err != nil && !errors.Is(err, os.ErrNotExist) {
		panic(err)
	}
	w.note("the outbox of s%d is copied", s.n)
}

func (w *world) restoreBox(s *sender) {
	if s.copied == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.dir, s.copied, s.restored = s.copied, "", time.Now()
	w.noteLocked("the outbox of s%d is restored from its copy", s.n)
	for _, m := range w.messages { // the disk is gone with what came after the copy
		if m.from.life.of == s && (m.returned.IsZero() || !m.returned.Before(s.copiedAt)) {
			m.dropped = "its outbox's disk was lost"
		}
	}
}
