package apisim

import (
	"time"
)

// checkGroups holds groups that were there all the time to having had everything.
func (w *world) checkGroups() {
	if w.p.Shape.Abrupt || w.p.Shape.Rude != "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	stored := w.storedLocked()
	w.checkUnionsLocked()
	w.eachLackLocked(func(m *msg, group, kind string) {
		if !stored[m] {
			w.violatedLocked(2, kind+w.rejectedLocked(m), "%v, group %s; %s", m, group, w.historyLocked(m))
		}
	})
}

// groupsLack reports whether a group that has a reader lacks a message that it is to have.
func (w *world) groupsLack() (lack bool) {
	if w.p.Shape.Rude != "" {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.eachLackLocked(func(*msg, string, string) { lack = true })
	return lack
}

// eachLackLocked calls f for the messages that another group has acked and a group that was there all the time, or was
// declared, has not. The caller must hold mu.
func (w *world) eachLackLocked(f func(m *msg, group, kind string)) {
	for _, m := range w.messages {
		if m.outcome != okay || m.dropped != "" || m.failed != "" || m.undelivered || len(m.acks) == 0 || len(m.to) != 1 || w.ephemeral(m) || m.from.plan.Plain {
			continue
		}
		r := w.receivers[m.to[0]]
		if r.plan.Declared {
			w.eachDeclaredLocked(m, r, f)
		}
		if len(r.lives) != 1 {
			continue
		}
		name := m.name()
		for g, since := range r.lives[0].topic(name).groups {
			if since.Before(m.began) && m.acks[g] == nil && w.servedLaterLocked(r.lives[0], name, g) {
				f(m, g, "a group that was there all the time lacks a message that another has")
			}
		}
	}
}

// eachDeclaredLocked is eachLackLocked for a message's declared groups, through all lives.
func (w *world) eachDeclaredLocked(m *msg, r *receiver, f func(m *msg, group, kind string)) {
	for _, l := range r.lives {
		if l.topic(m.name()).drops > 0 {
			return
		}
	}
	if r.life == nil || m.from.life.how == "killed" || w.leftLocked(m) && (w.drained.IsZero() || m.from.closing.Before(w.drained)) {
		return
	}
	for _, g := range r.groups() {
		if m.acks[g] == nil && w.servedLaterLocked(r.life, m.name(), g) {
			f(m, g, "a declared group lacks a message that another has")
		}
	}
}

// checkGrowth looks at what is left of addresses that are long gone.
func (w *world) checkGrowth() {
	w.mu.Lock()
	gone := w.churned
	w.mu.Unlock()
	if gone == 0 {
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
		if n > gone/2+10 {
			w.violated(14, "addresses that are gone leave goroutines behind: "+f, "%d after 15 minutes, of %d addresses", n, gone)
		}
	}
}

// servedLaterLocked reports whether a group has a living reader, or had one when everything was to have drained. The
// caller must hold mu.
func (w *world) servedLaterLocked(l *life, name, group string) bool {
	for _, x := range l.topic(name).subs {
		if x.by.plan.Group == group && x.by.life == l && (x.ending.IsZero() || !w.drained.IsZero() && x.ending.After(w.drained)) {
			return true
		}
	}
	return false
}

// checkUnionsLocked holds unnamed subscriptions that came soon after the last one had ended to having had what that
// left. The caller must hold mu.
func (w *world) checkUnionsLocked() {
	for _, r := range w.receivers {
		if len(r.lives) != 1 {
			continue
		}
		for name, t := range r.lives[0].topics {
			if len(t.groups) == 0 && t.drops == 0 && !t.unnamed && name != "e" {
				w.checkUnion(t, name)
			}
		}
	}
}

func (w *world) checkUnion(t *topicState, name string) {
	for _, u := range t.unions {
		for _, x := range t.subs {
			if x.began.IsZero() || !x.began.After(u.at) || x.began.After(u.at.Add(50*time.Second)) || !x.ending.IsZero() && !x.ending.After(w.drained) {
				continue
			}
			for _, m := range u.msgs {
				if m.failed == "" && len(m.acks) > 0 && m.acks[x.group()] == nil && m.dropped == "" {
					w.violatedLocked(2, "an unnamed subscription that came back lacks what the ended ones had not acked",
						"%v at subscription %d to %s; %s", m, x.id, name, w.historyLocked(m))
				}
			}
		}
	}
}
