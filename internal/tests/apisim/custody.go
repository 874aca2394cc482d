package apisim

import (
	"slices"
	"strings"
	"time"
)

// checkDrained says what living senders have confirmed and no handler has acked, when everything had its time to drain.
func (w *world) checkDrained() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.routes != nil {
		w.checkRoutedDrainedLocked()
	}
	for _, m := range w.messages {
		if w.owedLocked(m) && w.heldLocked(m) && w.servedLocked(m) {
			w.violatedLocked(8, "what a living sender has confirmed is not handled when all is well again"+w.suspectsLocked(m),
				"%v, %s%s", m, w.historyLocked(m), w.circumstancesLocked(m))
		}
	}
}

// undrained reports whether something is under way that has to be handled: of living senders, or of any.
func (w *world) undrained(living bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.messages {
		if (w.owedLocked(m) && w.servedLocked(m) || w.owingLocked(m) != "") && (!living || w.heldLocked(m)) {
			return true
		}
	}
	return false
}

// servedLocked reports whether every receiver of a message has a living reader of its topic. The caller must hold mu.
func (w *world) servedLocked(m *msg) bool {
	if m.routed {
		return w.servesNowLocked()
	}
	for _, r := range m.to {
		l, some := w.receivers[r].life, false
		if l == nil || l.ended() || l.store != nil && l.store.failed.Load() { // it asks for nothing more
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

// owedLocked reports whether a message was confirmed and is nowhere that the model knows of. The caller must hold mu.
func (w *world) owedLocked(m *msg) bool {
	return m.outcome == okay && !m.settled() && m.dropped == "" && !m.from.plan.Plain && !w.ephemeral(m)
}

func (w *world) ephemeral(m *msg) bool { return m.name() == "e" }

// heldLocked reports whether a process that can send a message lives. The caller must hold mu.
func (w *world) heldLocked(m *msg) bool {
	l := m.from.life
	if m.routed && !m.from.closing.IsZero() { // with it the route is forgotten
		return false
	}
	if l.how != "" {
		now := l.of.life
		return now != l && now.how == "" && now.boxed() && now.pubs[0].closing.IsZero()
	}
	if l.boxed() {
		return m.from.closing.IsZero()
	}
	return m.from.closing.IsZero() || l.manager != nil
}

// checkCustody says what was confirmed, has no holder, and was not reported.
func (w *world) checkCustody() {
	w.mu.Lock()
	defer w.mu.Unlock()
	type place struct {
		l *senderLife
		r int
	}
	lost, stored := map[place][]*msg{}, w.storedLocked()
	for _, m := range w.messages {
		if !w.owedLocked(m) || w.bothDiedLocked(m) || stored[m] {
			continue
		}
		at := place{m.from.life, m.to[0]}
		lost[at] = append(lost[at], m)
	}
	for at, ms := range lost {
		counted := at.l.counted
		for r := range receiversOf(ms) {
			for _, l := range w.receivers[r].lives {
				counted += l.counted
			}
		}
		w.checkReportedLocked(ms, counted)
	}
}

// receiversOf returns the receivers that any of the messages can have gone to: a route may move.
func receiversOf(ms []*msg) map[int]bool {
	all := map[int]bool{}
	for _, m := range ms {
		for _, r := range m.to {
			all[r] = true
		}
	}
	return all
}

// checkReportedLocked holds the Closes of both sides to accounting for messages that were not handled: counted is what
// their errors count. OnFailure gets each of them; where it may be late, or the messages are in an outbox, the count
// has to do. The caller must hold mu.
func (w *world) checkReportedLocked(ms []*msg, counted int) {
	boxed := ms[0].from.life.of.plan.Outbox
	lost := slices.DeleteFunc(slices.Clone(ms), func(m *msg) bool { return m.undelivered })
	switch {
	case (boxed || w.hookMayLagLocked()) && len(ms) > counted+w.untold:
		lost = ms
	case boxed || w.hookMayLagLocked():
		return
	case len(lost) == 0 && len(ms) > counted:
		w.violatedLocked(10, "a Close counts fewer messages than OnFailure gets", "%d of %d, such as %v; %s", counted, len(ms), ms[0], w.historyLocked(ms[0]))
		return
	case len(lost) <= w.untold+ms[0].from.life.back:
		return
	}
	m := lost[0]
	w.violatedLocked(10, w.howLocked(m)+w.rejectedLocked(m), "%d confirmed messages, such as %v, and %d reported; %s%s%s", len(lost), m, counted, w.historyLocked(m),
		w.suspectsLocked(m), w.circumstancesLocked(m))
}

// bothDiedLocked reports whether the contract lets a message be lost: both who held it have died. The caller must hold
// mu.
func (w *world) bothDiedLocked(m *msg) bool {
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
			case l.how == "killed" && w.leftLocked(m) && l.killed.After(m.began):
				// A publisher's nil Close leaves custody with a receiver that is connected, as far as it can know.
				if l.silent || m.from.closing.Before(l.killed.Add(300*time.Millisecond)) && !m.from.closed.Before(l.killed) || l.killed.After(m.from.closing) {
					return true
				}
			}
		}
	}
	return false
}

// leftLocked reports whether the publisher of a message has closed. The caller must hold mu.
func (w *world) leftLocked(m *msg) bool {
	return !m.from.closing.IsZero() || m.from.life.how == "closed"
}

// storedLocked are the messages that wait in outboxes when everything is closed. The caller must hold mu.
func (w *world) storedLocked() map[*msg]bool {
	stored := map[*msg]bool{}
	for _, s := range w.senders {
		if !s.plan.Outbox {
			continue
		}
		b, err := openBox(s.dir)
		if err != nil {
			continue
		}
		for _, data := range boxPending(b) {
			if m := w.findLocked(data); m != nil {
				stored[m] = true
			}
		}
		_ = b.Close()
	}
	return stored
}
