package apisim

import (
	"slices"
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
		w.checkReported(ms, counted)
	}
}

// checkReported holds the Closes of both sides to accounting for messages that nobody has handled: counted is what their errors
// count. OnFailure gets each of them; where it may be late, or the messages are in an outbox, the count has to do. The caller
// must hold mu.
func (w *world) checkReported(ms []*msg, counted int) {
	boxed := ms[0].from.life.of.plan.Outbox
	lost := slices.DeleteFunc(slices.Clone(ms), func(m *msg) bool { return m.undelivered })
	switch {
	case (boxed || w.hookMayLag()) && len(ms) > counted:
		lost = ms
	case boxed || w.hookMayLag():
		return
	case len(lost) == 0 && len(ms) > counted:
		w.violatedLocked(10, "a Close counts fewer messages than OnFailure gets", "%d of %d, such as %v; %s", counted, len(ms), ms[0], w.history(ms[0]))
		return
	case len(lost) == 0:
		return
	}
	m := lost[0]
	w.violatedLocked(10, w.how(m), "%d confirmed messages, such as %v, and %d reported; %s%s%s", len(lost), m, counted, w.history(m),
		w.suspects(m), w.circumstances(m))
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

// inBox is how many messages wait in a sender's outbox. mu is held.
func (w *world) inBox(s *sender) int {
	b, err := openBox(s.dir)
	if err != nil {
		return 0
	}
	defer b.Close()
	return boxPending(b)
}
