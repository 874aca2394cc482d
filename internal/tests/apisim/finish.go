package apisim

import (
	"sync"
	"time"
)

const (
	settleTime = 15 * time.Second // for connections to come back when the network has healed
	drainTime  = 90 * time.Second // for everything to be handled when everybody is well
)

// finish ends a program: the network heals, topics with prompt readers are probed beside those that are stuck, then everything
// is let go, has to drain, and is closed.
func (w *world) finish() {
	w.net.heal(w.addresses())
	w.mu.Lock()
	w.noteLocked("HEAL")
	w.mu.Unlock()
	w.healed = true
	if !w.p.Shape.Abrupt {
		w.calm()
		time.Sleep(settleTime)
		w.probes()
		w.untame()
		w.staff()
		w.drain()
		w.drained = time.Now()
		w.checkDrained()
		w.checkGrowth()
	}
	w.closeEverything()
	w.calm()
	w.untame()
	w.await(60 * time.Second)
	w.checkGroups()
	w.checkCustody()
	if w.net.hot != "" {
		w.violated(13, "an address is dialed in a hot loop"+w.rudeness(), "%s", w.net.hot)
	}
}

func (w *world) untame() {
	select {
	case <-w.tame:
	default:
		w.note("TAME")
		close(w.tame)
	}
}

// await waits until no call is under way that is late.
func (w *world) await(most time.Duration) {
	for end := time.Now().Add(most); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		w.mu.Lock()
		n := len(w.calls)
		w.mu.Unlock()
		if n == 0 {
			return
		}
	}
	for _, c := range w.overdue() {
		w.violated(13, c.name+" does not return"+w.because(c.began), "for %v, with a time-out of %v", time.Since(c.began), c.bound)
	}
}

// probes publishes to each topic that only prompt readers have.
func (w *world) probes() {
	for _, r := range w.receivers {
		for _, name := range r.topics(true) {
			if !w.prompt(r, name) {
				continue
			}
			w.mu.Lock()
			why := w.suspect(r, name)
			w.mu.Unlock()
			if err := w.probe(r, name, 10, 20*time.Second); err != nil {
				w.violated(12, "a topic with prompt readers takes no message"+why, "%s/%s: %v", w.address(r.n), name, err)
			} else if err := w.probe(r, name, 1500, 20*time.Second); err != nil && w.p.Shape.PeerLimit == 0 {
				w.violated(12, "a topic with prompt readers takes small messages and no larger one"+why, "%s/%s: %v", w.address(r.n), name, err)
			}
		}
	}
}

// prompt tells whether all groups of a topic have prompt readers only.
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

// suspect names what may have to do with a topic that takes nothing, or does not hand out what it took. mu is held.
func (w *world) suspect(r *receiver, name string) (s string) {
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

// staff makes sure that every receiver lives, and that every topic has readers of all its groups.
func (w *world) staff() {
	for _, r := range w.receivers {
		for range 20 {
			if r.life != nil && (r.life.how == "" || !r.life.closed.IsZero() || r.life.how == "killed") {
				break
			}
			time.Sleep(time.Second)
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
	nobody := len(wanted) == 0
	w.mu.Unlock()
	for g, want := range wanted {
		if want {
			w.staffGroup(l, name, g)
		}
	}
	if nobody {
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

// drain waits until everything is handled.
func (w *world) drain() {
	begin := time.Now()
	for time.Since(begin) < drainTime && w.undrained(true) || time.Since(begin) < settleTime && w.undrained(false) {
		time.Sleep(200 * time.Millisecond)
	}
}

// closeEverything closes all that lives, side by side or in turn, as the seed has it.
func (w *world) closeEverything() {
	w.note("CLOSE")
	r := w.random(77)
	var ends []func()
	for _, s := range w.senders {
		if l := s.life; l != nil && l.how == "" {
			ends = append(ends, func() { w.closeSender(l, 1) })
		}
	}
	for _, x := range w.receivers {
		if l := x.life; l != nil && !l.ended() {
			ends = append(ends, func() { w.closeReceiver(l, r.IntN(2) == 0, 1) })
		}
	}
	r.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
	sideBySide := r.IntN(3) == 0
	var all sync.WaitGroup
	defer func() { w.within(3*time.Minute, all.Wait) }()
	for _, end := range ends {
		all.Add(1)
		done := make(chan struct{})
		go func() {
			defer all.Done()
			defer close(done)
			end()
		}()
		if sideBySide {
			continue
		}
		select {
		case <-done:
		case <-time.After(60 * time.Second):
		}
	}
}

// within waits for f, but not for ever.
func (w *world) within(most time.Duration, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(most):
	}
}

// checkGroups holds groups that were there all the time to having had everything.
func (w *world) checkGroups() {
	if w.p.Shape.Abrupt || w.p.Shape.Rude != "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.messages {
		if m.outcome != okay || m.dropped != "" || m.failed != "" || len(m.acks) == 0 || len(m.to) != 1 || w.ephemeral(m) {
			continue
		}
		lives := w.receivers[m.to[0]].lives
		if len(lives) != 1 || m.from.plan.Plain {
			continue
		}
		name := m.name()
		for g, since := range lives[0].topic(name).groups {
			if since.Before(m.began) && m.acks[g] == nil && w.servedLater(lives[0], name, g) {
				w.violatedLocked(2, "a group that was there all the time lacks a message that another has", "%v, group %s; %s", m, g, w.history(m))
			}
		}
	}
}

// checkGrowth looks at what is left of addresses that are long gone.
func (w *world) checkGrowth() {
	if w.churned == 0 {
		return
	}
	time.Sleep(15 * time.Minute)
	links := map[string]int{}
	for _, stack := range bubble() {
		if f := libraryFrame(stack); f != "" {
			links[f]++
		}
	}
	for f, n := range links {
		if n > w.churned/2+10 {
			w.violated(14, "addresses that are gone leave goroutines behind: "+f, "%d after 15 minutes, of %d addresses", n, w.churned)
		}
	}
}

// servedLater tells that a group had a living reader when everything was to drain. mu is held.
func (w *world) servedLater(l *life, name, group string) bool {
	for _, x := range l.topic(name).subs {
		if x.by.plan.Group == group && x.by.life == l && (x.ending.IsZero() || x.ending.After(w.drained)) {
			return !w.drained.IsZero()
		}
	}
	return false
}
