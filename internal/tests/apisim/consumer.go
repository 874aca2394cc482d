package apisim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// subscription is one call of Subscribe.
type subscription struct {
	id       int
	by       *subscriber
	topic    string // its name on the wire
	mood     mood
	routed   bool // a Router has it
	cancel   context.CancelFunc
	began    time.Time // Subscribe has returned
	ending   time.Time // it was asked to end
	ended    time.Time // its channel was closed
	outlived bool      // when its process had been killed
	seen     map[int]int
	busy     int       // handlers that run
	idle     time.Time // since when none did
	atEnd    func()    // is called when its channel is closed
}

// group is how the model calls the group that a subscription belongs to.
func (s *subscription) group() string {
	if s.by.plan.Group != "" {
		return s.by.plan.Group
	}
	return fmt.Sprintf("unnamed %d", s.id)
}

// subscribe makes a subscription.
func (w *world) subscribe(s *subscriber, name string, m mood) {
	l := s.life
	topic := w.address(l.of.n) + "/" + name
	if l.of.plan.Kind == pubsub {
		topic = name
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.mu.Lock()
	x := &subscription{id: len(w.subs), by: s, topic: name, mood: m, cancel: cancel, seen: map[int]int{}}
	x.routed = l.router != nil && l.routerClosed.IsZero()
	w.subs = append(w.subs, x)
	w.mu.Unlock()
	var out <-chan *message.Message
	err := w.timed(l.proc, "Subscribe", 10*time.Second, func() (err error) {
		if x.routed {
			return w.addHandler(ctx, x, topic)
		}
		out, err = s.api.Subscribe(ctx, topic)
		return err
	})
	w.mu.Lock()
	w.noteLocked("%s.sub%d subscribes to %s as %s, %s: %v", l.proc.name, s.n, topic, x.group(), m, err)
	if err != nil {
		x.ended = time.Now()
	} else {
		x.began = time.Now()
		t := l.topic(name)
		t.subs = append(t.subs, x)
		if g := s.plan.Group; g != "" && t.groups[g].IsZero() {
			t.groups[g] = time.Now()
			delete(t.dropped, g)
		}
		w.leftBesideLocked(x)
	}
	w.mu.Unlock()
	if err == nil && !x.routed {
		go w.consume(x, out)
	}
}

// addHandler adds a handler to the Router.
func (w *world) addHandler(ctx context.Context, x *subscription, topic string) error {
	l := x.by.life
	w.mu.Lock()
	l.handlers++
	w.mu.Unlock()
	return l.router.add(ctx, topic, x.by.api, func(m *message.Message) error {
		if w.handle(x, m) {
			return nil
		}
		return errors.New("apisim: nack")
	}, func() { w.over(x) })
}

// consume reads a subscription's channel until it is closed.
func (w *world) consume(x *subscription, out <-chan *message.Message) {
	if x.mood == "reads nothing" {
		<-w.tame
	}
	for m := range out {
		w.delivery(x, m)
		go func() {
			if w.judge(x, m) {
				w.acked(x, m)
				m.Ack()
			} else {
				w.nacked(m)
				m.Nack()
			}
		}()
	}
	w.over(x)
}

// over notes that a subscription's channel was closed.
func (w *world) over(x *subscription) {
	w.mu.Lock()
	x.ended, x.outlived = time.Now(), x.by.life.how == "killed"
	if x.ending.IsZero() {
		x.ending = x.ended
	}
	w.noteLocked("the channel of subscription %d is closed", x.id)
	w.remainderLocked(x)
	atEnd := x.atEnd
	w.mu.Unlock()
	if atEnd != nil {
		atEnd()
	}
}

// handle is a Router's handler.
func (w *world) handle(x *subscription, m *message.Message) bool {
	w.delivery(x, m)
	if !w.judge(x, m) {
		w.nacked(m)
		return false
	}
	w.acked(x, m)
	return true
}

// end cancels a subscription.
func (w *world) end(x *subscription) {
	w.mu.Lock()
	w.endingLocked(x)
	w.mu.Unlock()
	x.cancel()
}

// endingLocked notes that a subscription was asked to end, and what that lets go unhandled. The caller must hold mu.
func (w *world) endingLocked(x *subscription) {
	if !x.ending.IsZero() {
		return
	}
	w.markEndingLocked(x)
	w.remainderLocked(x)
}

func (w *world) markEndingLocked(x *subscription) {
	x.ending = time.Now()
	w.noteLocked("subscription %d of %s ends", x.id, x.by.life.proc.name)
}

// remainderLocked notes what an unnamed subscription leaves when it ends: nothing beside others, all that was not acked
// if it is the last. When exactly it leaves cannot be seen: some time from its being asked to its channel's end. The
// caller must hold mu.
func (w *world) remainderLocked(x *subscription) {
	l := x.by.life
	if x.by.plan.Group != "" || l.proc.dead.Load() {
		return
	}
	t := l.topic(x.topic)
	stays := len(t.groups) > 0
	for _, other := range t.subs {
		stays = stays || other != x && other.by.plan.Group == "" && other.ended.IsZero() && other.ending.IsZero()
	}
	if stays { // its remainder counts as acked
		w.letGoLocked(l.of.n, x.topic, "an unnamed subscription ended beside others")
		return
	}
	if x.ended.IsZero() {
		return
	}
	u := union{at: time.Now()}
	for _, m := range w.messages {
		if len(m.to) == 1 && m.to[0] == l.of.n && m.name() == x.topic && m.outcome == okay && !m.settled() && m.from.plan.Confirm != 1 &&
			!m.from.plan.Plain && !m.from.life.boxed() {
			u.msgs = append(u.msgs, m)
		}
	}
	t.unions = append(t.unions, u)
}

// leftBesideLocked notes that unnamed subscriptions which are ending end beside one that has begun. The caller must
// hold mu.
func (w *world) leftBesideLocked(begun *subscription) {
	for _, x := range begun.by.life.topic(begun.topic).subs {
		if x != begun && !x.ending.IsZero() && x.ended.IsZero() {
			w.remainderLocked(x)
		}
	}
}

// letGoLocked notes that the messages of a topic that are under way may go unhandled. The caller must hold mu.
func (w *world) letGoLocked(receiver int, topic, why string) {
	for _, m := range w.messages {
		if !m.settled() && m.dropped == "" && (m.topic == topic || m.topic == w.address(receiver)+"/"+topic) {
			m.dropped = why
		}
	}
}

// endSubscriptions notes that subscriptions were asked to end.
func (w *world) endSubscriptions(l *life, which func(*subscription) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ends []*subscription
	for _, t := range l.topics {
		for _, x := range t.subs {
			if which(x) && x.ending.IsZero() {
				w.markEndingLocked(x)
				ends = append(ends, x)
			}
		}
	}
	for _, x := range ends { // none of them stays
		w.remainderLocked(x)
	}
}
