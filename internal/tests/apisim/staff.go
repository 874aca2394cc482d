package apisim

import (
	"time"
)

// staff makes sure that every receiver lives, and that every topic has readers of all its groups.
func (w *world) staff() {
	for _, r := range w.receivers {
		for range 20 {
			if r.life != nil && (r.life.how == "" || !r.life.closed.IsZero() || r.life.how == "killed") {
				break
			}
			time.Sleep(time.Second)
		}
		if w.staysAway(r) {
			continue
		}
		if r.life == nil || r.life.ended() {
			w.do(func() { w.startReceiver(r) })
		}
		if r.life != nil && !r.life.ended() {
			for _, name := range r.topics(false) {
				w.staffTopic(r.life, name)
			}
		}
	}
	for _, s := range w.senders {
		if s.plan.Outbox && (s.life == nil || !s.life.ended.IsZero()) {
			w.restoreBox(s)
			w.do(func() { w.startSender(s) })
		}
	}
}

// staffTopic has a reader for each group of a topic.
func (w *world) staffTopic(l *life, name string) {
	w.mu.Lock()
	t := l.topic(name)
	wanted := map[string]bool{}
	for g := range t.groups {
		wanted[g] = true
	}
	for _, g := range l.groups[name] {
		wanted[g] = true
	}
	for _, x := range t.subs {
		if x.ending.IsZero() {
			wanted[x.by.plan.Group] = false
		}
	}
	unstaffed := len(wanted) == 0
	w.mu.Unlock()
	for g, want := range wanted {
		if want {
			w.staffGroup(l, name, g)
		}
	}
	if unstaffed {
		w.staffGroup(l, name, l.of.plan.Subs[0].Group)
	}
}

func (w *world) staffGroup(l *life, name, group string) {
	for _, s := range l.subs {
		if s.plan.Group == group && !s.plan.Ephemeral && s.closing.IsZero() && (l.router == nil || l.routerClosed.IsZero()) {
			w.do(func() { w.subscribe(s, name, "prompt") })
			return
		}
	}
	if l.of.plan.Kind != shared {
		return
	}
	plan := subscriberPlan{Group: group, InFlight: 1, CloseTimeout: time.Second, Key: l.subs[0].plan.Key} // as all of the group have
	w.do(func() {
		if w.addSubscriber(l, len(l.subs), plan) {
			w.subscribe(l.subs[len(l.subs)-1], name, "prompt")
		}
	})
}
