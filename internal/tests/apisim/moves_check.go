package apisim

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// handed is a delivery of a message that a route chose the host of.
type handed struct {
	life   *life
	stream streamID
	tenure uint64
	marked bool // it said that it may be a duplicate
	acked  bool
	at     time.Time
}

// ackGroup is who answers for a message with a subscription's acks: its consumer group, at any host of its group of the
// route.
func (w *world) ackGroup(x *subscription, m *msg) string {
	if !m.routed {
		return x.group()
	}
	return routedGroup(x.by.plan.Group, w.groupOf(x.by.life.of.n))
}

func routedGroup(consumers string, routeGroup int) string {
	return consumers + "@" + strconv.Itoa(routeGroup)
}

// checkMovedLocked holds a delivery to what moves may do (invariant 11). The caller must hold mu.
func (w *world) checkMovedLocked(x *subscription, m *msg, got *message.Message) {
	d, _ := buffstreams.DeliveryFromContext(got.Context())
	at, _ := buffstreams.PositionFromContext(got.Context())
	l, g := x.by.life, w.ackGroup(x, m)
	w.noteLocked("  tenure %d, stream %d, sequence %d, maybe duplicate %v, redelivered %v", d.Tenure, at.Stream, at.Sequence, d.MaybeDuplicate, d.Redelivered)
	for _, h := range m.had[g] {
		if h.stream == at.StreamID && h.tenure > d.Tenure && w.toldLocked(m, l, h.at) {
			w.violatedLocked(11, "a host delivers what has gone elsewhere, of which it was told", "%v: %s of %s in tenure %d, after %s in tenure %d", m, g,
				l.proc.name, d.Tenure, h.life.proc.name, h.tenure)
		}
		switch {
		case !h.acked || d.MaybeDuplicate:
		case d.Tenure < h.tenure && h.marked: // a host that has not heard yet that its tenure is void
		case h.life == l && h.tenure == d.Tenure:
			w.violatedLocked(11, "a message that was acked is delivered once more to its group, in one tenure", "%v to %s of %s", m, g, l.proc.name)
		case w.revivedLocked(m), w.p.Shape.Moves.MoveAfter < 0: // without tenures, or with another process, nothing tells
		case h.life.of == l.of:
			w.violatedLocked(11, "a message that an earlier process at its address acked comes again and is not marked"+w.gone(h.life),
				"%v: %s of %s in tenure %d, then %s in tenure %d", m, g, h.life.proc.name, h.tenure, l.proc.name, d.Tenure)
		default:
			w.violatedLocked(11, "a message that another host acked comes again and is not marked"+w.gone(h.life),
				"%v: %s of %s in tenure %d, then %s in tenure %d", m, g, h.life.proc.name, h.tenure, l.proc.name, d.Tenure)
		}
		if h.acked && h.life != l && w.calmLocked() && !w.revivedLocked(m) {
			w.violatedLocked(11, "a message is handled twice though nothing has failed", "%v: %s of %s in tenure %d, then %s in tenure %d", m, g,
				h.life.proc.name, h.tenure, l.proc.name, d.Tenure)
		}
	}
	if d.MaybeDuplicate && w.givesBackLocked(m) {
		w.violatedLocked(11, "a message is marked though every host has given back what no handler had", "%v: %s of %s in tenure %d", m, g, l.proc.name, d.Tenure)
	}
	m.had[g] = append(m.had[g], &handed{life: l, stream: at.StreamID, tenure: d.Tenure, marked: d.MaybeDuplicate, at: time.Now()})
	w.checkTenureLocked(x, m, d, at)
	w.checkKeyLocked(x, m, g)
}

// toldLocked reports whether a message's sender, which goes on, must have told a host that lives of what it sent
// elsewhere at a moment: nothing has failed, or the host could be reached for long. The caller must hold mu.
func (w *world) toldLocked(m *msg, l *life, since time.Time) bool {
	patience := time.Second
	if w.disturbed {
		patience = 10 * time.Second
	}
	r := l.of.n
	if unwell := w.routes.unwell[r]; unwell.After(since) {
		since = unwell
	}
	return time.Since(since) > patience && l.how == "" && !w.ailing(r) && m.from.life.how == "" && m.from.closing.IsZero()
}

// gone says how a process has ended.
func (w *world) gone(l *life) string {
	switch {
	case l.how == "killed" && l.silent:
		return ": it was killed silently"
	case l.how != "":
		return ": it was " + l.how
	case w.ailing(l.of.n):
		return ": it cannot be reached"
	}
	return ""
}

// calmLocked reports whether nothing has happened but closes, and changes of the route. The caller must hold mu.
func (w *world) calmLocked() bool {
	return !w.disturbed && w.p.Shape.Moves.Brisk && len(w.receivers[0].groups()) == 1 && w.p.Shape.Moves.MoveAfter > 0
}

// givesBackLocked reports whether no host has had any reason yet but to give back what no handler had, and to have the
// rest handled first. The caller must hold mu.
func (w *world) givesBackLocked(m *msg) bool {
	if !w.calmLocked() || w.revivedLocked(m) {
		return false
	}
	for _, r := range w.receivers {
		if len(r.lives) > 1 || r.life == nil || r.life.how != "" || r.life.store != nil {
			return false
		}
	}
	return true
}

// revivedLocked reports whether a message comes from a later process of its sender. The caller must hold mu.
func (w *world) revivedLocked(m *msg) bool { return m.from.life.how != "" }

// aloneLocked reports whether a subscription is the only one that its group has had in its life, or keys keep the
// order. The caller must hold mu.
func (s *subscription) aloneLocked() bool {
	if s.by.plan.Key {
		return true
	}
	n := 0
	for _, o := range s.by.life.topic(s.topic).subs {
		if o.group() == s.group() {
			n++
		}
	}
	return n <= 1
}

// checkTenureLocked holds first deliveries of a stream's tenure to the order of its sequences, and to that of the
// calls, where the policy promises that: with others, a part of a call can go on elsewhere behind the rest. The caller
// must hold mu.
func (w *world) checkTenureLocked(x *subscription, m *msg, d buffstreams.Delivery, at store.Position) {
	if d.Redelivered || !x.aloneLocked() {
		return
	}
	scope := fmt.Sprintf("tenure %s/%s/%x/%d/%d/%d/%s", x.by.life.proc.name, x.group(), at.Publisher, at.Epoch, at.Stream, d.Tenure, m.lane)
	if x.by.plan.Key {
		scope += "/" + m.key
	}
	numbers := map[string]int{"sequences": int(at.Sequence)}
	if p := w.p.Shape.Moves.Policy; p == failover || p == toAll || p.keyed() {
		numbers["Publish calls"] = m.seq
	}
	for of, n := range numbers {
		if last := w.firsts[scope+of]; last > n {
			w.violatedLocked(11, "first deliveries of a tenure are not in the order of their "+of, "%v, number %d, after %d, to subscription %d", m, n, last, x.id)
		}
		w.firsts[scope+of] = max(w.firsts[scope+of], n)
	}
}

// checkKeyLocked holds the first deliveries of a key to the order of the calls, wherever they are. The caller must hold
// mu.
func (w *world) checkKeyLocked(x *subscription, m *msg, g string) {
	if len(m.had[g]) > 1 || !w.p.Shape.Moves.Policy.keyed() || w.revivedLocked(m) {
		return
	}
	for _, o := range w.subs {
		if o.group() == x.group() && !o.aloneLocked() {
			return
		}
	}
	scope := fmt.Sprintf("key %s/%s/%s", m.lane, m.key, g)
	if last := w.firsts[scope]; last > m.seq {
		w.violatedLocked(11, "first deliveries of a key are not in the order of their Publish calls, at several hosts", "%v, number %d of its lane, after %d, to %s",
			m, m.seq, last, x.by.life.proc.name)
	}
	w.firsts[scope] = max(w.firsts[scope], m.seq)
}

// ackedMoved notes an ack. The caller must hold mu.
func (m *msg) ackedMoved(g string, l *life) {
	for _, h := range slices.Backward(m.had[g]) {
		if h.life == l {
			h.acked = true
			return
		}
	}
}

// checkRouted checks what a Publish call over the route said, and how long it took.
func (w *world) checkRouted(p *publisher, ms []*msg, began time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m, s := ms[0], &w.p.Shape.Moves
	if p.plan.Confirm == 2 && err == nil && !p.life.boxed() {
		for _, m := range ms {
			if g := w.lackingLocked(m, began); g != "" {
				w.violatedLocked(2, "ConfirmHandled says nil for what a group of the route has not acked", "%v, group %s", m, g)
			}
		}
	}
	received := s.Brisk && p.plan.Confirm == 0 // for which slow handlers do not count
	if s.MoveAfter < 0 || !s.Prompt && !received || w.p.Shape.Tight || errors.Is(err, errPublisherClosed) || !w.servesLocked(w.earlierLocked(began)) {
		return
	}
	took, bound := time.Since(began), s.MoveAfter+3*time.Second
	switch {
	case err != nil && took > bound:
		w.violatedLocked(12, "Publish fails though a host of the route was well all the time", "%v: after %v: %v", m, took, err)
	case took > bound:
		w.violatedLocked(13, "Publish takes long though a host of the route was well all the time", "%v: %v", m, took)
	}
}

// earlierLocked is a second before a moment, but not before the hosts were there that the program begins with. The
// caller must hold mu.
func (w *world) earlierLocked(t time.Time) time.Time {
	if t = t.Add(-time.Second); t.Before(w.built) {
		return w.built
	}
	return t
}

// lackingLocked names a group, of those that every message since a moment has to come to, that has not acked one. The
// caller must hold mu.
func (w *world) lackingLocked(m *msg, since time.Time) string {
	for r, member := range w.routes.members {
		if !member || !w.expectedLocked(r, since) {
			continue
		}
		for _, g := range w.receivers[r].groups() {
			if a := m.acks[routedGroup(g, w.groupOf(r))]; a == nil {
				return routedGroup(g, w.groupOf(r))
			}
		}
	}
	return ""
}

// checkRoutedDrainedLocked holds every group of the route to having handled what living senders have confirmed. The
// caller must hold mu.
func (w *world) checkRoutedDrainedLocked() {
	for _, m := range w.messages {
		if g := w.owingLocked(m); g != "" && w.heldLocked(m) {
			w.violatedLocked(8, "what a living sender has confirmed is not handled by every group when all is well again",
				"%v, group %s; %s%s", m, g, w.historyLocked(m), w.circumstancesLocked(m))
		}
	}
}

// owingLocked names a group, of those that can be expected to have it, that has not acked a confirmed message. The
// caller must hold mu.
func (w *world) owingLocked(m *msg) string {
	if !m.routed || m.outcome != okay || m.dropped != "" || m.failed != "" || m.undelivered {
		return ""
	}
	for r, member := range w.routes.members {
		if !member || !w.expectedLocked(r, m.began) || !w.groupLivesLocked(w.groupOf(r)) {
			continue
		}
		for _, g := range w.receivers[r].groups() {
			if key := routedGroup(g, w.groupOf(r)); m.acks[key] == nil {
				return key
			}
		}
	}
	return ""
}

// groupLivesLocked reports whether a host of a group of the route lives and is read. The caller must hold mu.
func (w *world) groupLivesLocked(group int) bool {
	for r, member := range w.routes.members {
		l := w.receivers[r].life
		if !member || w.groupOf(r) != group || l == nil || l.ended() || l.store != nil && l.store.failed.Load() {
			continue
		}
		read := 0
		for _, g := range w.receivers[r].groups() {
			for _, x := range l.topic("t0").subs {
				if x.by.plan.Group == g && x.ending.IsZero() && !x.began.IsZero() {
					read++
					break
				}
			}
		}
		if read == len(w.receivers[r].groups()) {
			return true
		}
	}
	return false
}

// checkAddresses holds Managers to having forgotten the addresses that left the route and hold nothing.
func (w *world) checkAddresses() {
	for _, s := range w.senders {
		if l := s.life; l != nil && l.how == "" && l.manager != nil && (!l.boxed() || w.p.Shape.Moves.Policy != toAll) { // what is pinned is idle first
			if stray := w.strayAddresses(l.manager); len(stray) > 0 && !w.undrained(true) {
				w.violated(14, "an address that left the route is kept though it holds nothing", "%v", stray)
			}
		}
	}
}
