package apisim

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// delivery notes that a subscription got a message, and checks what that tells.
func (w *world) delivery(x *subscription, got *message.Message) {
	id := idOf(got)
	w.mu.Lock()
	defer w.mu.Unlock()
	if id < 0 || id >= len(w.messages) { // undecodable, and emitted with its raw bytes
		return
	}
	m := w.messages[id]
	w.delivered++
	l, g := x.by.life, w.ackGroup(x, m)
	if l.proc.dead.Load() {
		return
	}
	w.noteLocked("m%d delivered to subscription %d (%s, %s)", id, x.id, l.proc.name, g)
	if string(got.Payload) != m.payload && !undecodable(got) {
		w.violatedLocked(1, "a message is delivered with other bytes"+w.changed(got), "%v: %.40q%s", m, got.Payload, w.rudeness())
	}
	if m.outcome == notSent {
		w.violatedLocked(1, "a message that was said not to be sent is delivered", "%v", m)
	}
	if !slices.Contains(m.to, l.of.n) {
		w.violatedLocked(11, "a message is delivered where it was not sent", "%v at %s", m, l.proc.name)
	}
	if m.routed {
		w.checkMovedLocked(x, m, got)
	} else {
		w.checkAgainLocked(x, m)
		w.checkOrderLocked(x, m)
	}
	w.checkSiblingsLocked(x, m)
	w.checkStoreLocked(l, m)
}

// changed reports whether a handler wrote what a message has now.
func (w *world) changed(got *message.Message) string {
	if len(got.Payload) > 0 && got.Payload[0] == 'X' {
		return ", which a handler wrote before its Nack"
	}
	return w.rudeness()
}

func (w *world) rudeness() string {
	if r := w.p.Shape.Rude; r != "" {
		return " (" + string(r) + ")"
	}
	return ""
}

// checkAgainLocked holds a group to getting an acked message once. The caller must hold mu.
func (w *world) checkAgainLocked(x *subscription, m *msg) {
	l, g := x.by.life, x.group()
	before := m.acks[g]
	s := m.from.life.of
	switch {
	case before == nil || before.void || !s.restored.IsZero() || w.p.Shape.Rude != "" || l.topic(x.topic).drops > 0:
	case before.life == l:
		w.violatedLocked(4, "a message that was acked is delivered once more to its group", "%v to %s of %s", m, g, l.proc.name)
	case l.n == before.life.n+1 && before.life.how == "killed" && w.closedBeforeKillLocked(before.by) &&
		!w.faultyLocked() && m.from.life.how != "killed" && m.from.listensUntilLocked(before.by.ended) && w.aloneInLocked(before.life, x.topic):
		w.violatedLocked(4, "a message acked before its channel was closed comes again, though the connection stood until then",
			"%v to %s: acked at %v, channel closed at %v, killed at %v", m, g, before.at.Sub(w.began), before.by.ended.Sub(w.began), before.life.killed.Sub(w.began))
	case l.n == before.life.n+1 && w.stoodLocked(before.life, m) && w.aloneInLocked(before.life, x.topic):
		w.violatedLocked(4, "a message acked before a graceful close comes again, though the connection stood",
			"%v to %s: acked at %v, %s began to close at %v", m, g, before.at.Sub(w.began), before.life.proc.name, before.life.closing.Sub(w.began))
	}
}

// closedBeforeKillLocked reports whether a subscription's channel was closed before its process was killed, so that its
// acks had been written. Of a host that falls silent they must have arrived too. The caller must hold mu.
func (w *world) closedBeforeKillLocked(x *subscription) bool {
	return !x.ended.IsZero() && !x.outlived && !(x.by.life.silent && x.ended.Add(w.net.latency).After(x.by.life.killed))
}

// listensUntilLocked reports whether acks reach a publisher's messages until some moment: those of an outbox while the
// publisher is open, others while their Manager is. The caller must hold the world's mu.
func (p *publisher) listensUntilLocked(moment time.Time) bool {
	ends := p.closing
	if !p.life.boxed() && p.life.manager != nil {
		ends = p.life.closing
	}
	return ends.IsZero() || ends.After(moment)
}

// checkSiblingsLocked holds a group to giving a nacked message to a member that is idle. One is not while OnFailure has
// its messages: which member's these are cannot be seen, so that they count for all. None is while a DedupeStore that
// does not return has its acks. The caller must hold mu.
func (w *world) checkSiblingsLocked(x *subscription, m *msg) {
	if x.mood != "always nacks" || x.seen[m.id] < 5 || x.by.plan.Key || x.by.plan.Group == "" || !m.from.life.of.restored.IsZero() {
		return // an outbox that was restored sends what was nacked before as something new
	}
	if until, ever := w.gated["dedupe"]; x.by.life.store != nil && ever && (until.IsZero() || time.Since(until) <= time.Second) {
		return
	}
	room, failing := 0, map[*subscriber]int{}
	for _, other := range x.by.life.topic(x.topic).subs {
		if other != x && other.group() == x.group() && other.mood == "prompt" && other.ending.IsZero() && other.busy == 0 &&
			time.Since(other.began) > 3*time.Second && time.Since(other.idle) > time.Second && time.Since(other.by.failed) > time.Second {
			room += other.by.plan.InFlight
			failing[other.by] = other.by.failing
		}
	}
	for _, n := range failing {
		room -= n
	}
	if room > 0 {
		w.violatedLocked(12, "a nacked message stays with its member although a sibling is idle", "%v, %d times to subscription %d", m, x.seen[m.id]+1, x.id)
	}
}

// checkStoreLocked holds a receiver whose DedupeStore has failed to what it had granted by then. The caller must hold
// mu.
func (w *world) checkStoreLocked(l *life, m *msg) {
	if l.store == nil || !l.store.failed.Load() || !w.p.Shape.Tight || !w.freshLocked(l, m) {
		return
	}
	if l.store.since++; l.store.since > 80 { // windows of 8 messages for 4 topics, for both directions of a race
		w.violatedLocked(5, "a receiver whose DedupeStore has failed goes on to give credit", "%d deliveries since then, such as %v", l.store.since, m)
	}
}

// freshLocked reports whether a message was published after the life of a receiver began, and delivered never before.
// The caller must hold mu.
func (w *world) freshLocked(l *life, m *msg) bool {
	return m.began.After(l.began) && len(m.first) == 1 && m.nacks == 0
}

// faultyLocked reports whether connections broke in this program. The caller must hold mu.
func (w *world) faultyLocked() bool { return w.faults }

// stoodLocked reports whether nothing stood between a life's graceful end and the sender of a message. The caller must
// hold mu.
func (w *world) stoodLocked(l *life, m *msg) bool {
	return l.how == "closed" && !l.closed.IsZero() && !w.disturbed && m.from.life.how == "" && m.from.closing.IsZero() &&
		m.acks[firstKey(m.acks)].at.Before(l.closing) && l.closed.Sub(l.closing) < w.managerCloseTimeout()-200*time.Millisecond
}

func firstKey(m map[string]*ack) string {
	for k := range m {
		return k
	}
	return ""
}

// aloneInLocked reports whether a topic had one group in a life. The caller must hold mu.
func (w *world) aloneInLocked(l *life, topic string) bool {
	groups := map[string]bool{}
	t := l.topic(topic)
	for g := range t.groups {
		groups[g] = true
	}
	for _, x := range t.subs {
		groups[x.group()] = true
	}
	return len(groups) == 1
}

// checkOrderLocked holds the first deliveries of a lane to the order of its calls. The caller must hold mu.
func (w *world) checkOrderLocked(x *subscription, m *msg) {
	g := x.group()
	if m.first[g] || w.p.Shape.Rude != "" || w.gibberish { // the key of a message that cannot be decoded is another one
		return
	}
	m.first[g] = true
	l := x.by.life
	members := 0
	for _, other := range l.topic(x.topic).subs {
		if other.group() == g {
			members++
		}
	}
	scope := fmt.Sprintf("%s/%s/%s/%s", m.lane, l.proc.name, x.topic, g)
	switch {
	case x.by.plan.Key:
		scope += "/" + m.key
	case members > 1:
		return
	}
	if x.routed && x.by.plan.InFlight > 1 { // a Router has a goroutine for each message
		return
	}
	if x.began.IsZero() || m.began.Before(x.began) { // it may come from a member or a life before
		if x.by.plan.Group == "" || l.n > 0 {
			return
		}
	}
	if len(m.to) > 1 && !m.began.After(w.moved) { // what was under way at a switch can come later than what follows
		return
	}
	if m.began.Before(m.from.life.of.restored) { // an outbox that was restored sends what it holds once more
		return
	}
	if last := w.firsts[scope]; last > m.seq {
		kind := "first deliveries are not in the order of their Publish calls"
		if x.by.plan.Key {
			kind = "first deliveries of one key are not in the order of their Publish calls"
		}
		w.violatedLocked(4, kind, "%v, number %d of its lane, after %d, to %s", m, m.seq, last, g)
	}
	w.firsts[scope] = max(w.firsts[scope], m.seq)
}

// acked notes that a handler has acked.
func (w *world) acked(x *subscription, got *message.Message) {
	id := idOf(got)
	w.mu.Lock()
	defer w.mu.Unlock()
	if id < 0 || id >= len(w.messages) || x.by.life.proc.dead.Load() {
		return
	}
	m := w.messages[id]
	g, void := w.ackGroup(x, m), got.Context().Err() != nil
	if before := m.acks[g]; before == nil || before.void {
		m.acks[g] = &ack{life: x.by.life, by: x, at: time.Now(), void: void}
	}
	if m.routed && !void {
		m.ackedMoved(g, x.by.life)
	}
}

// nacked notes that a handler has nacked.
func (w *world) nacked(got *message.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id := idOf(got); id >= 0 && id < len(w.messages) {
		w.messages[id].nacks++
	}
}

// checkPublished checks what a Publish call said.
func (w *world) checkPublished(p *publisher, ms []*msg, err error) {
	if errors.Is(err, errPanicked) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	parts := publishErrors(err)
	if len(parts) == 0 && err != nil && !errors.Is(err, errPublisherClosed) {
		w.violatedLocked(1, "an error of Publish does not say what became of the messages", "%v", err)
	}
	if err != nil && errors.Is(err, errTopicGone) {
		// A call has one error for all its messages: it is wrong if none of them is gone.
		if !slices.ContainsFunc(ms, func(m *msg) bool { return !w.heardLocked(m) }) {
			w.violatedLocked(2, "a message that was acked is said to be gone with its topic", "%v: %v", ms[0], err)
		}
	}
	if p.plan.Confirm != 2 || p.life.boxed() || err != nil {
		return
	}
	for _, m := range ms {
		if !m.settled() && m.dropped == "" {
			w.violatedLocked(2, "ConfirmHandled says nil for what no handler has acked"+w.rudeness(), "%v", m)
		}
	}
}

// checkFlushed checks that a Flush or Drain that returned nil was right.
func (w *world) checkFlushed(p *publisher, name string, before []*msg) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range before {
		switch {
		case m.settled() || m.dropped != "" || m.undelivered:
		case p.life.boxed():
			w.violatedLocked(1, name+" says nil for what was not handled (outbox)"+w.rudeness(), "%v", m)
		case name == "Drain" && m.outcome == okay && !w.ephemeral(m) && !w.hookMayLagLocked():
			w.violatedLocked(1, "Drain says nil for what was not handled"+w.rudeness(), "%v", m)
		case !w.reachableLocked(m):
			w.violatedLocked(1, "Flush says nil for what no receiver can have", "%v", m)
		}
	}
}

// hookMayLagLocked reports whether what was given to OnFailure need not have come there yet. The caller must hold mu.
func (w *world) hookMayLagLocked() bool {
	_, blocked := w.gated["onfailure"]
	return blocked || strings.HasPrefix(string(w.p.Shape.Rude), "onfailure")
}

// reachableLocked reports whether any receiver that a message can go to lived at any time since it was published. The
// caller must hold mu.
func (w *world) reachableLocked(m *msg) bool {
	for _, r := range m.to {
		for _, l := range w.receivers[r].lives {
			end := l.closed // until then it may take messages
			if l.how == "killed" {
				end = l.killed
			}
			if end.IsZero() || !end.Before(m.began) {
				return true
			}
		}
	}
	return false
}
