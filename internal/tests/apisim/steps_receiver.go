package apisim

import (
	"runtime"
	"slices"
	"time"
)

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
	l, began := x.life, time.Now()
	w.mu.Lock()
	w.letGoLocked(l.of.n, name, "its group was dropped")
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
	if slices.ContainsFunc(t.subs, func(sub *subscription) bool { return sub.by.plan.Group == x.plan.Group && !sub.began.Before(began) }) {
		t.groups[x.plan.Group] = time.Now().Add(1000 * time.Hour) // it may have been made anew meanwhile, or not: it is owed nothing
	}
	for _, sub := range t.subs { // what they are for the topic now is not said
		if sub.by.plan.Group == x.plan.Group && sub.ending.IsZero() {
			sub.ending = time.Now()
			defer sub.cancel() //nolint:gocritic // few, and mu is held until then
		}
	}
	w.letGoLocked(l.of.n, name, "its group was dropped")
}

func (w *world) withReceiver(s Step, r *receiver) {
	l, address := r.life, w.address(r.n)
	alive := l != nil && !l.ended()
	switch s.Op {
	case opRoute:
		w.mu.Lock()
		w.rerouted = w.rerouted || w.route != r.n
		w.route = r.n
		w.mu.Unlock()
	case opLeave, opCome:
		w.setMember(r.n, s.Op == opCome)
	case opMute:
		w.disturbed, w.faults = true, true
		w.net.mute(address, !w.net.mutes[address])
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
	if s.Op != opLeave && s.Op != opCome {
		w.disturb(r.n)
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
