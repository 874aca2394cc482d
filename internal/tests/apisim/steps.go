package apisim

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// hogAddress is where somebody accepts and never reads.
const hogAddress = "127.0.0.1:7900"

// hog begins to accept and never reads.
func (w *world) hog() {
	l, err := w.net.listen(&process{name: "hog"})("tcp", hogAddress)
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	go func() {
		<-w.tame
		_ = l.Close()
		w.net.cut(hogAddress)
	}()
}

// take does one step.
func (w *world) take(s Step) {
	time.Sleep(s.Wait)
	w.mu.Lock()
	w.step = s.ID
	w.noteLocked("STEP %v", s)
	w.mu.Unlock()
	switch s.Op {
	case opPublish, opFlush, opDrain, opClosePub, opChurn:
		if p := w.publisher(s.A); p != nil {
			w.withPublisher(s, p)
		}
	case opCloseSender, opKillSender, opReviveSender, opCopyBox:
		w.withSender(s, w.senders[s.A%len(w.senders)])
	case opSubscribe, opInitialize, opDropGroup, opCloseSub:
		if x := w.subscriber(s.A); x != nil {
			w.withSubscriber(s, x)
		}
	case opCloseRouter, opCloseReceiver, opKillReceiver, opRevive, opCut, opHole, opRefuse, opLowerLimit, opRoute:
		w.withReceiver(s, w.receivers[s.A%len(w.receivers)])
	case opCancel:
		if x := w.living(s.A); x != nil {
			w.end(x)
		}
	case opSwap, opCancelKill:
		if x := w.living(s.A); x != nil {
			w.endWith(s, x)
		}
	case opGate:
		w.toggleGate(gateKinds[s.A%len(gateKinds)])
	case opFail:
		w.disturbed = true
		w.mu.Lock()
		kind := failKinds[s.A%len(failKinds)]
		w.failing[kind] = !w.failing[kind]
		w.mu.Unlock()
	}
}

// endWith ends a subscription while something else happens.
func (w *world) endWith(s Step, x *subscription) {
	l := x.by.life
	if s.Op == opSwap {
		go w.end(x)
		yields := w.random(s.ID).IntN(60) // some moment of the end
		w.do(func() {
			for range yields {
				runtime.Gosched()
			}
			w.subscribe(x.by, x.topic, moods[s.C%len(moods)])
		})
		return
	}
	w.disturbed = true
	w.mu.Lock()
	x.atEnd = func() { w.killReceiver(l, false) }
	w.mu.Unlock()
	go w.end(x)
}

func (w *world) withPublisher(s Step, p *publisher) {
	timeout := time.Duration(100+s.C*3) * time.Millisecond
	switch s.Op {
	case opPublish:
		if p.plan.Plain {
			w.publish(p, w.destination(p, s.B), 100, 14000, false)
			return
		}
		w.publish(p, w.destination(p, s.B), s.N, w.size(s.C, p), false)
	case opFlush:
		go w.flush(p, false, timeout)
	case opDrain:
		go w.flush(p, true, timeout)
	case opClosePub:
		go w.closePublisher(p, s.N)
	case opChurn:
		w.churn(p, s.N)
	}
}

// size is how many bytes of filler a message has.
func (w *world) size(n int, p *publisher) int {
	switch {
	case w.p.Shape.Oversized && n%8 == 0:
		return 90_000 // more than the peer takes as a frame, so that it is not even sent
	case w.p.Shape.Oversized && n%4 == 0:
		return 3000
	case n%10 == 1 || w.p.Shape.Tight && n%2 == 1:
		return 7000
	}
	return n % 64
}

// churn publishes to addresses where nobody is.
func (w *world) churn(p *publisher, n int) {
	if p.pub != nil || p.life.boxed() || p.plan.Plain {
		return
	}
	w.churned += n
	go func() {
		for i := range n {
			m := message.NewMessage("x", []byte("nobody"))
			topic := fmt.Sprintf("127.0.0.1:%d/x", 20000+w.churned+i)
			_ = w.timed(p.life.proc, "Publish", p.plan.PublishTimeout, func() error { return p.api.Publish(topic, m) })
		}
	}()
}

func (w *world) withSender(s Step, to *sender) {
	l := to.life
	alive := l != nil && l.how == ""
	switch {
	case s.Op == opCloseSender && alive:
		go w.closeSender(l, s.N)
	case s.Op == opKillSender && alive:
		w.disturbed = true
		w.killSender(l, s.C%2 == 1)
	case s.Op == opReviveSender && to.plan.With < 0 && l != nil && !l.ended.IsZero():
		w.restoreBox(to)
		w.do(func() { w.startSender(to) })
	case s.Op == opCopyBox && alive:
		w.copyBox(to)
	}
}

func (w *world) withSubscriber(s Step, x *subscriber) {
	l := x.life
	names := l.of.topics(false)
	name := names[s.B%len(names)]
	if x.plan.Ephemeral {
		name = "e"
	}
	topic := w.address(l.of.n) + "/" + name
	if l.of.plan.Kind == pubsub {
		topic = name
	}
	switch s.Op {
	case opSubscribe:
		w.do(func() { w.subscribe(x, name, moods[s.C%len(moods)]) })
	case opInitialize:
		w.do(func() {
			err := w.timed(l.proc, "SubscribeInitialize", 10*time.Second, func() error { return x.api.SubscribeInitialize(topic) })
			w.mu.Lock()
			defer w.mu.Unlock()
			w.noteLocked("%s.sub%d initializes %s: %v", l.proc.name, x.n, topic, err)
			if err == nil && x.plan.Group == "" {
				l.topic(name).unnamed = true
			}
			if t := l.topic(name); err == nil && x.plan.Group != "" && t.groups[x.plan.Group].IsZero() {
				t.groups[x.plan.Group] = time.Now()
				delete(t.dropped, x.plan.Group)
			}
		})
	case opDropGroup:
		if x.plan.Group != "" {
			w.do(func() { w.dropGroup(x, topic, name) })
		}
	case opCloseSub:
		go w.closeSubscriber(x, s.N)
	}
}

func (w *world) dropGroup(x *subscriber, topic, name string) {
	l := x.life
	w.mu.Lock()
	w.letGo(l.of.n, name, "its group was dropped")
	w.mu.Unlock()
	err := w.timed(l.proc, "DropGroup", 10*time.Second, func() error { return x.api.DropGroup(topic, x.plan.Group) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.noteLocked("%s.sub%d drops its group of %s: %v", l.proc.name, x.n, topic, err)
	if err != nil {
		return
	}
	t := l.topic(name)
	t.dropped[x.plan.Group] = true
	t.drops++
	delete(t.groups, x.plan.Group)
	for _, sub := range t.subs { // what they are for the topic now is not said
		if sub.by.plan.Group == x.plan.Group && sub.ending.IsZero() {
			sub.ending = time.Now()
			defer sub.cancel()
		}
	}
	w.letGo(l.of.n, name, "its group was dropped")
}

func (w *world) withReceiver(s Step, r *receiver) {
	l, address := r.life, w.address(r.n)
	alive := l != nil && !l.ended()
	switch s.Op {
	case opRoute:
		w.mu.Lock()
		w.route = r.n
		w.mu.Unlock()
	case opCut:
		w.disturbed, w.faults = true, true
		w.net.cut(address)
	case opHole:
		w.disturbed, w.faults = true, true
		w.net.blackHole(address, !w.net.holes[address])
	case opRefuse:
		w.disturbed, w.faults = true, true
		w.net.refuse(address, !w.net.refused[address])
	case opLowerLimit:
		r.limit = 4096
	case opRevive:
		if l == nil || l.ended() && (!l.closed.IsZero() || l.how == "killed") {
			w.do(func() { w.revive(r) })
		}
	}
	if !alive {
		return
	}
	switch s.Op {
	case opCloseRouter:
		go w.closeRouter(l)
	case opCloseReceiver:
		go w.closeReceiver(l, s.C%2 == 1, s.N)
	case opKillReceiver:
		w.disturbed = true
		w.killReceiver(l, s.C%2 == 1)
	}
}

// revive starts a receiver again, with the subscriptions that it had, one after the other.
func (w *world) revive(r *receiver) {
	old := r.life
	w.startReceiver(r)
	if old == nil || r.life == old {
		return
	}
	w.mu.Lock()
	var again []*subscription
	for _, name := range r.topics(true) {
		if t := old.topics[name]; t != nil {
			again = append(again, t.subs...)
		}
	}
	w.mu.Unlock()
	for i, x := range again {
		if x.by.n < len(r.life.subs) {
			w.sleep(time.Duration(w.random(i).IntN(100)) * time.Millisecond)
			w.subscribe(r.life.subs[x.by.n], x.topic, x.mood)
		}
	}
}

// publisher is the nth of those that live.
func (w *world) publisher(n int) *publisher {
	var all []*publisher
	for _, s := range w.senders {
		if s.life != nil && s.life.how == "" {
			for _, p := range s.life.pubs {
				if p.closing.IsZero() {
					all = append(all, p)
				}
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[n%len(all)]
}

func (w *world) subscriber(n int) *subscriber {
	var all []*subscriber
	for _, r := range w.receivers {
		if r.life != nil && !r.life.ended() {
			for _, s := range r.life.subs {
				if s.closing.IsZero() {
					all = append(all, s)
				}
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[n%len(all)]
}

func (w *world) living(n int) *subscription {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []*subscription
	for _, x := range w.subs {
		if !x.began.IsZero() && x.ending.IsZero() {
			all = append(all, x)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[n%len(all)]
}

var errNever = errors.New("apisim: not within its time")

// probe publishes one message with a publisher of its own and tells whether it was handled in time.
func (w *world) probe(r *receiver, name string, size int, timeout time.Duration) error {
	s := &sender{n: 900 + r.n, plan: senderPlan{With: -1}}
	l := &senderLife{of: s, proc: &process{name: "probe"}}
	p := &publisher{life: l, plan: publisherPlan{Confirm: 2, PublishTimeout: timeout, CloseTimeout: time.Second}, lanes: map[string]*lane{}}
	a, err := w.newPublisher(p)
	if err != nil {
		return err
	}
	p.api = a
	d := destination{w.address(r.n) + "/" + name, []int{r.n}}
	m, out := w.newMessage(p, d, "probe "+d.topic, size)
	w.mu.Lock()
	m.dropped, m.began, m.seq = "a probe", time.Now(), m.id
	w.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- a.Publish(d.topic, out) }()
	select {
	case err = <-done:
	case <-time.After(timeout + 5*time.Second):
		err = errNever
	}
	w.note("probe m%d of %s: %v", m.id, d.topic, err)
	go func() { _ = a.Close() }()
	return err
}

var _ = context.Background
