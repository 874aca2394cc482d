package apisim

import (
	"fmt"
	"strings"
	"time"
)

// checkDrained says what living senders have confirmed and nobody has handled, when everything had its time to drain.
func (w *world) checkDrained() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.messages {
		if w.owed(m) && w.held(m) && w.served(m) {
			w.violatedLocked(8, "what a living sender has confirmed is not handled when all is well again"+w.suspects(m),
				"%v, %s%s", m, w.history(m), w.circumstances(m))
		}
	}
}

// undrained tells that something is under way that has to be handled: of living senders, or of any.
func (w *world) undrained(living bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.messages {
		if w.owed(m) && w.served(m) && (!living || w.held(m)) {
			return true
		}
	}
	return false
}

// served tells that every receiver of a message has a living reader of its topic. mu is held.
func (w *world) served(m *msg) bool {
	for _, r := range m.to {
		l, some := w.receivers[r].life, false
		if l == nil || l.ended() {
			return false
		}
		for _, x := range l.topic(m.name()).subs {
			some = some || x.ending.IsZero() && !x.began.IsZero()
		}
		if !some {
			return false
		}
	}
	return true
}

// name is that of a message's topic on the wire.
func (m *msg) name() string { return m.topic[strings.LastIndexByte(m.topic, '/')+1:] }

// owed tells that a message was confirmed and is nowhere that the model knows of. mu is held.
func (w *world) owed(m *msg) bool {
	return m.outcome == okay && !m.settled() && m.dropped == "" && !m.from.plan.Plain && !w.ephemeral(m)
}

func (w *world) ephemeral(m *msg) bool { return m.name() == "e" }

// held tells that a process that can send a message lives. mu is held.
func (w *world) held(m *msg) bool {
	l := m.from.life
	if l.how != "" {
		now := l.of.life
		return now != l && now.how == "" && now.boxed() && now.pubs[0].closing.IsZero()
	}
	if l.boxed() {
		return m.from.closing.IsZero()
	}
	return m.from.closing.IsZero() || l.manager != nil
}

// circumstances name what may have to do with it. mu is held.
func (w *world) circumstances(m *msg) string {
	s := w.rudeness()
	if m.from.life.of.plan.Outbox {
		s += " (outbox)"
	}
	if w.p.Shape.Tight {
		s += " (tight)"
	}
	if w.p.Shape.Oversized && len(m.payload) > w.p.Shape.PeerLimit {
		s += " (over the peer's limit)"
	}
	return s
}

// suspects are what may have to do with it at its first receiver. mu is held.
func (w *world) suspects(m *msg) string { return w.suspect(w.receivers[m.to[0]], m.name()) }

// checkCustody says what was confirmed, is held by nobody, and was reported by nobody.
func (w *world) checkCustody() {
	w.mu.Lock()
	defer w.mu.Unlock()
	type place struct {
		l *senderLife
		r int
	}
	lost := map[place][]*msg{}
	for _, m := range w.messages {
		if !w.owed(m) || w.bothDied(m) {
			continue
		}
		at := place{m.from.life, m.to[0]}
		lost[at] = append(lost[at], m)
	}
	for at, ms := range lost {
		counted := at.l.counted
		for _, l := range w.receivers[at.r].lives {
			counted += l.counted
		}
		if at.l.of.plan.Outbox {
			counted += w.inBox(at.l.of)
		}
		if len(ms) > counted {
			m := ms[0]
			w.violatedLocked(10, w.how(m), "%d confirmed messages, such as %v, and %d reported; %s%s%s", len(ms), m, counted,
				w.history(m), w.suspects(m), w.circumstances(m))
		}
	}
}

// bothDied tells that the contract lets a message be lost: both who held it have died. mu is held.
func (w *world) bothDied(m *msg) bool {
	s := m.from.life
	if s.of.plan.Outbox {
		return false
	}
	if s.how == "killed" && m.from.plan.Confirm == 1 {
		return true
	}
	for _, r := range m.to {
		for _, l := range w.receivers[r].lives {
			switch {
			case l.how == "killed" && s.how == "killed" && l.killed.After(m.began):
				return true
			case l.how == "closed" && s.how == "killed" && !s.ended.Before(l.closing): // it was handed back
				return true
			case l.how == "killed" && w.left(m) && l.killed.After(m.began):
				// A publisher's nil Close leaves custody with a receiver that is connected, as far as it can know.
				if l.silent || m.from.closing.Before(l.killed.Add(300*time.Millisecond)) && !m.from.closed.Before(l.killed) || l.killed.After(m.from.closing) {
					return true
				}
			}
		}
	}
	return false
}

// left tells that the publisher of a message has closed. mu is held.
func (w *world) left(m *msg) bool { return !m.from.closing.IsZero() || m.from.life.how == "closed" }

// how names the way in which a message was lost. mu is held.
func (w *world) how(m *msg) string {
	s := m.from.life
	end := s.ended
	if s.manager == nil && !m.from.closed.IsZero() {
		end = m.from.closed
	}
	says := "nil"
	if m.from.closeErr != nil || s.counted > 0 {
		says = "an error"
	}
	who := "a closed publisher"
	switch {
	case s.within != nil && s.within.of.plan.Kind == pubsub:
		who = "a PubSub"
	case s.within != nil:
		who = "a publisher on the receiver's Manager"
	case s.how == "killed":
		who = "a killed publisher"
	}
	var after string
	for _, r := range m.to {
		for _, l := range w.receivers[r].lives {
			kind := string(l.of.plan.Kind)
			if l.of.plan.Router {
				kind += " router"
			}
			switch {
			case l.how == "killed" && !l.killed.Before(m.began) && (end.IsZero() || l.killed.Before(end)):
				after += ", whose receiver had been killed"
			case l.how == "closed" && !l.closed.Before(m.began) && (end.IsZero() || l.closing.Before(end)):
				after += fmt.Sprintf(", whose receiver (%s) had closed with %v", kind, verdict(l.closeErr))
			case l.how == "closed" && !l.closed.Before(m.began):
				after += fmt.Sprintf(", whose receiver (%s) closed later with %v", kind, verdict(l.closeErr))
			default:
				continue
			}
			return fmt.Sprintf("confirmed messages are gone: of %s (Close: %s)%s", who, says, after)
		}
	}
	return fmt.Sprintf("confirmed messages are gone: of %s (Close: %s)", who, says)
}

func verdict(err error) string {
	if err == nil {
		return "nil"
	}
	return "an error"
}

// inBox is how many messages wait in a sender's outbox. mu is held.
func (w *world) inBox(s *sender) int {
	b, err := openBox(s.dir)
	if err != nil {
		return 0
	}
	defer b.Close()
	return boxPending(b)
}

// history says who lived when. mu is held.
func (w *world) history(m *msg) string {
	at := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return fmt.Sprintf("%.3fs", t.Sub(w.began).Seconds())
	}
	s := fmt.Sprintf("published %s..%s; publisher closed %s..%s with %v; its process %s %s;", at(m.began), at(m.returned),
		at(m.from.closing), at(m.from.closed), m.from.closeErr, m.from.life.how, at(m.from.life.ended))
	for _, r := range m.to {
		for _, l := range w.receivers[r].lives {
			s += fmt.Sprintf(" %s %s %s %s closing %s closed %s killed %s with %v;", l.proc.name, l.of.plan.Kind, at(l.began), l.how,
				at(l.closing), at(l.closed), at(l.killed), l.closeErr)
		}
	}
	return s
}
