package apisim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// circumstancesLocked name what may have to do with it. The caller must hold mu.
func (w *world) circumstancesLocked(m *msg) string {
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

// suspectsLocked are what may have to do with it at its first receiver. The caller must hold mu.
func (w *world) suspectsLocked(m *msg) string {
	r := w.receivers[m.to[0]]
	if s := w.rejectedLocked(m); s != "" {
		return s
	}
	if s := w.suspectLocked(r, m.name()); s != "" {
		return s
	}
	switch {
	case w.p.Shape.Oversized && len(m.payload) > w.p.Shape.PeerLimit:
		return ": it is over the peer's limit"
	case !m.from.life.of.restored.IsZero():
		return ": its outbox was restored"
	case w.gibberish:
		return ": unmarshaling had failed for a while"
	}
	return w.rudeness()
}

// rejectedLocked says that a message was rejected, by a subscriber without a hook, when its publisher was there no
// longer. The caller must hold mu.
func (w *world) rejectedLocked(m *msg) string {
	for _, s := range w.receivers[m.to[0]].plan.Subs {
		if s.NoHook && s.Attempts > 0 && m.nacks >= s.Attempts && (w.leftLocked(m) || m.from.life.how == "killed") {
			return ": it was rejected to a publisher that had left"
		}
	}
	return ""
}

// howLocked names the way in which a message was lost. The caller must hold mu.
func (w *world) howLocked(m *msg) string {
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
	for _, r := range m.to {
		for _, l := range slices.Backward(w.receivers[r].lives) { // the last that the publisher can have met had it
			if !end.IsZero() && l.began.After(end) {
				continue
			}
			var after string
			kind := string(l.of.plan.Kind)
			if l.of.plan.Router {
				kind += " router"
			}
			switch {
			case l.how == "killed" && !l.killed.Before(m.began) && (end.IsZero() || l.killed.Before(end)):
				after = ", whose receiver had been killed"
			case l.how == "closed" && !l.closed.Before(m.began) && (end.IsZero() || l.closing.Before(end)):
				after = fmt.Sprintf(", whose receiver (%s) had closed with %v", kind, verdict(l.closeErr))
			case l.how == "closed" && !l.closed.Before(m.began):
				after = fmt.Sprintf(", whose receiver (%s) closed later with %v", kind, verdict(l.closeErr))
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

// historyLocked says who lived when. The caller must hold mu.
func (w *world) historyLocked(m *msg) string {
	at := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return fmt.Sprintf("%.3fs", t.Sub(w.began).Seconds())
	}
	var s strings.Builder
	fmt.Fprintf(&s, "published %s..%s; publisher closed %s..%s with %v; its process %s %s;", at(m.began), at(m.returned),
		at(m.from.closing), at(m.from.closed), m.from.closeErr, m.from.life.how, at(m.from.life.ended))
	for _, r := range m.to {
		for _, l := range w.receivers[r].lives {
			fmt.Fprintf(&s, " %s %s %s %s closing %s closed %s killed %s with %v;", l.proc.name, l.of.plan.Kind, at(l.began), l.how,
				at(l.closing), at(l.closed), at(l.killed), l.closeErr)
		}
	}
	return s.String()
}
