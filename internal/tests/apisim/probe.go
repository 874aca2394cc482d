package apisim

import (
	"errors"
	"time"
)

// probes publishes to each topic that only prompt readers have.
func (w *world) probes() {
	for _, r := range w.receivers {
		for _, name := range r.topics(true) {
			if !w.prompt(r, name) {
				continue
			}
			w.mu.Lock()
			why := w.suspectLocked(r, name)
			w.mu.Unlock()
			if err := w.probe(r, name, 10, 20*time.Second); err != nil {
				w.violated(12, "a topic with prompt readers takes no message"+why, "%s/%s: %v", w.address(r.n), name, err)
			} else if err := w.probe(r, name, 1500, 20*time.Second); err != nil && w.p.Shape.PeerLimit == 0 {
				w.violated(12, "a topic with prompt readers takes small messages and no larger one"+why, "%s/%s: %v", w.address(r.n), name, err)
			}
		}
	}
}

// prompt reports whether all groups of a topic have prompt readers only.
func (w *world) prompt(r *receiver, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := r.life
	if l == nil || l.ended() || w.p.Shape.Rude != "" || l.store != nil && l.store.failed.Load() { // it acks nothing more
		return false
	}
	t := l.topic(name)
	missing := map[string]bool{}
	for g := range t.groups {
		missing[g] = true
	}
	for _, g := range l.groups[name] {
		missing[g] = !t.dropped[g]
	}
	living := 0
	for _, x := range t.subs {
		switch {
		case x.ended.IsZero() && !x.ending.IsZero(): // it is ending
			return false
		case !x.ending.IsZero():
			continue
		case x.mood != "prompt":
			return false
		}
		living++
		missing[x.by.plan.Group] = false
	}
	for _, m := range missing {
		if m {
			return false
		}
	}
	return living > 0
}

// suspectLocked names what may have to do with a topic that takes nothing, or does not hand out what it took. The
// caller must hold mu.
func (w *world) suspectLocked(r *receiver, name string) (s string) {
	for _, l := range r.lives {
		t := l.topic(name)
		switch {
		case t.drops > 0 && l.groups != nil:
			s = ": a declared group was dropped"
		case t.drops > 0:
			s = ": a group was dropped"
		}
		if t.unnamed && s == "" {
			s = ": it was initialized without a group"
		}
		for _, x := range t.subs {
			if x.by.plan.Group == "" && !x.ending.IsZero() && s == "" {
				s = ": an unnamed subscription came and went"
			}
		}
	}
	if name == "e" {
		s += ": it is ephemeral"
	}
	return s
}

var errNever = errors.New("apisim: not within its time")

// probe publishes one message with a publisher of its own and reports whether it was handled in time.
func (w *world) probe(r *receiver, name string, size int, timeout time.Duration) error {
	s := &sender{n: 900 + r.n, plan: senderPlan{With: -1}}
	l := &senderLife{of: s, proc: &process{name: "probe"}}
	p := &publisher{life: l, plan: publisherPlan{Confirm: 2, PublishTimeout: timeout, CloseTimeout: time.Second}, lanes: map[string]*lane{}}
	a, err := w.newPublisher(p)
	if err != nil {
		return err
	}
	p.api = a
	d := destination{topic: w.address(r.n) + "/" + name, to: []int{r.n}}
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
