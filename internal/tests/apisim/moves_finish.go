package apisim

import (
	"time"
)

// probeRoute publishes over the route when all is well: if every group of it has a host that is, the message is
// handled.
func (w *world) probeRoute() {
	if w.routes == nil || !w.p.Shape.Moves.Prompt {
		return
	}
	w.mu.Lock()
	well := w.servesLocked(time.Now().Add(-10 * time.Second))
	w.mu.Unlock()
	if !well {
		return
	}
	s := &sender{n: 950, plan: senderPlan{With: -1}}
	l := &senderLife{of: s, proc: &process{name: "probe"}}
	timeout := 20 * time.Second
	p := &publisher{life: l, plan: publisherPlan{Confirm: 2, PublishTimeout: timeout, CloseTimeout: time.Second, Logical: true}, lanes: map[string]*lane{}}
	a, err := w.newPublisher(p)
	if err != nil {
		w.violated(12, "a route with hosts that are well takes no message", "%v", err)
		return
	}
	p.api = a
	for range 3 {
		m, out := w.newMessage(p, destination{topic: "t0", to: w.everywhere(), routed: true}, "probe", 10)
		w.mu.Lock()
		m.dropped, m.began, m.seq = "a probe", time.Now(), m.id
		w.mu.Unlock()
		done := make(chan error, 1)
		go func() { done <- a.Publish("t0", out) }()
		select {
		case err = <-done:
		case <-time.After(timeout + 5*time.Second):
			err = errNever
		}
		w.note("probe m%d of the route: %v", m.id, err)
		if err != nil {
			w.violated(12, "a route with hosts that are well takes no message", "%v", err)
			break
		}
	}
	go func() { _ = a.Close() }()
}

// checkMoves looks at what moves have left behind when everything is handled.
func (w *world) checkMoves() {
	if w.routes == nil || w.routes.changes == 0 || w.undrained(true) {
		return
	}
	time.Sleep(50 * time.Second) // a lookup, moves, and what follows
	w.checkAddresses()
}
