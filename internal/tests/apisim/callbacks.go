package apisim

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// api is a Publisher as programs use it.
type api interface {
	message.Publisher
	Flush(context.Context) error
	Drain(context.Context) error
}

// subscribing is a Subscriber as programs use it.
type subscribing interface {
	message.Subscriber
	SubscribeInitialize(topic string) error
	DropGroup(topic, group string) error
}

// both is a PubSub as programs use it.
type both interface {
	api
	subscribing
}

// idOf is the number of a message, or -1. One that was not decoded has it in its bytes.
func idOf(m *message.Message) int {
	uuid := m.UUID
	if undecodable(m) {
		uuid = uuidOf(m.Payload)
	}
	id, err := strconv.Atoi(strings.TrimPrefix(uuid, "m"))
	if err != nil {
		return -1
	}
	return id
}

// onFailure is the hook of a process's publishers and Managers.
func (w *world) onFailure(proc *process, who, topic string, encoded []byte, reason error) {
	w.callback("onfailure")
	if proc.dead.Load() {
		return
	}
	m := w.find(encoded)
	if m == nil {
		if len(encoded) > 0 {
			return
		}
		w.violated(10, "OnFailure of a publisher gets no bytes", "%s: %v", topic, reason)
		return
	}
	w.mu.Lock()
	w.noteLocked("OnFailure of %s: m%d: %v", who, m.id, reason)
	if errors.Is(reason, errUndelivered) {
		w.undeliveredLocked(m)
		w.mu.Unlock()
		w.misbehave(m.from)
		return
	}
	if errors.Is(reason, errTopicGone) && w.heardLocked(m) && !m.from.sent().boxed() {
		w.violatedLocked(2, "a message that was acked is said to be gone with its topic", "m%d: %v", m.id, reason)
	}
	m.failed, m.reported = "OnFailure of its publisher", time.Now()
	if limit := w.p.Shape.PeerLimit; limit > 0 && len(m.payload) > limit && m.served && proc == m.from.life.proc && w.quietLocked() && time.Since(m.began) > 5*time.Second {
		w.violatedLocked(13, "a message over the peer's limit is reported late", "m%d after %v", m.id, time.Since(m.began))
	}
	w.mu.Unlock()
	w.misbehave(m.from)
}

// undeliveredLocked notes that a Close gave a message to OnFailure. The caller must hold mu.
func (w *world) undeliveredLocked(m *msg) {
	m.undelivered = true
	if m.outcome == notSent {
		w.violatedLocked(10, "OnFailure gets at a Close what Publish said was not sent", "%v", m)
	}
}

// misbehave does what a rude OnFailure does.
func (w *world) misbehave(p *publisher) {
	switch {
	case w.rude("onfailure-panics", 1):
		panic("apisim: OnFailure")
	case w.rude("onfailure-publishes", 1) && !w.healed && w.publishesAgain():
		w.publish(p, w.destination(p, 0), 1, 20, false)
	}
}

// mostAgain bounds what the OnFailure hooks of a program publish: where the peer refuses all of that too, and a Manager's
// publishers have a hook each, it would grow for ever.
const mostAgain = 1000

// publishesAgain reports whether an OnFailure may publish once more.
func (w *world) publishesAgain() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.again++
	return w.again <= mostAgain
}

// quietLocked reports whether no fault, kill, close or blocking callback has happened. The caller must hold mu.
func (w *world) quietLocked() bool {
	for _, r := range w.receivers {
		if len(r.lives) != 1 || r.lives[0].ended() {
			return false
		}
	}
	return !w.disturbed && len(w.gated) == 0
}

// subFailure is the subscribers' hook.
func (w *world) subFailure(s *subscriber, m *message.Message, reason error) {
	w.concurrent(s, 1)
	defer w.concurrent(s, -1)
	w.callback("subfailure")
	found := w.find(m.Payload)
	if found == nil {
		id := idOf(m)
		if id < 0 {
			return
		}
		w.violated(1, "OnFailure of a subscriber gets bytes that a handler changed", "m%d: %.20q: %v", id, m.Payload, reason)
		found = w.messages[id]
	}
	w.mu.Lock()
	found.failed = "OnFailure of a subscriber"
	if n := spentAttempts(reason); n > found.nacks && !s.life.of.impatient() {
		w.violatedLocked(2, "a message fails for good although no handler has nacked it so often", "%v: %v, %d nacks", found, reason, found.nacks)
	}
	w.noteLocked("OnFailure of a subscriber: m%d: %v", found.id, reason)
	w.mu.Unlock()
	if w.rude("subfailure-panics", 1) {
		panic("apisim: OnFailure of a subscriber")
	}
}

// concurrent holds a Subscriber to its MaxInFlight in what it handles itself.
func (w *world) concurrent(s *subscriber, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.failing += n
	if n < 0 {
		s.failed = time.Now()
	}
	subs := 0
	for _, x := range w.subs {
		if x.by == s {
			subs++
		}
	}
	if s.failing > s.plan.InFlight*subs {
		w.violatedLocked(5, "OnFailure of a subscriber runs for more messages at a time than MaxInFlight", "%d, %d subscriptions of %d", s.failing, subs, s.plan.InFlight)
	}
}

func (w *world) key(m *message.Message) string {
	if w.rude("key-panics", idOf(m)) {
		panic("apisim: key")
	}
	return m.Metadata.Get("key")
}

// deadLetters takes what failed for good.
type deadLetters struct{ w *world }

func (d deadLetters) Publish(_ string, messages ...*message.Message) error {
	if d.w.callback("deadletter") {
		return errors.New("apisim: no dead letters today")
	}
	if d.w.rude("deadletter-panics", 1) {
		select {
		case <-d.w.tame: // what it does for ever is tried for ever
		default:
			panic("apisim: dead letters")
		}
	}
	for _, m := range messages {
		found := d.w.find(m.Payload)
		if id := idOf(m); found == nil && id >= 0 {
			d.w.violated(1, "dead letters have bytes that a handler changed", "m%d: %.20q", id, m.Payload)
			found = d.w.messages[id]
		}
		if found != nil {
			d.w.mu.Lock()
			found.failed = "the dead letters"
			d.w.mu.Unlock()
		}
	}
	return nil
}

func (deadLetters) Close() error { return nil }
