package apisim

import (
	"time"
)

// closeSubscriber closes one Subscriber; n calls side by side.
func (w *world) closeSubscriber(s *subscriber, n int) {
	l := s.life
	w.mu.Lock()
	first := s.closing.IsZero()
	if first {
		s.closing = time.Now()
	}
	w.mu.Unlock()
	if !first || l.of.plan.Kind != shared {
		return
	}
	w.endSubscriptions(l, func(x *subscription) bool { return x.by == s })
	err := w.closeAll(l.proc, "Subscriber.Close", n, s.plan.CloseTimeout, s.api.Close)
	w.mu.Lock()
	s.closed = time.Now()
	l.counted += undelivered(err)
	w.noteLocked("%s.sub%d closed: %v", l.proc.name, s.n, err)
	w.mu.Unlock()
}

// closeRouter closes the Router, which closes its Subscribers.
func (w *world) closeRouter(l *life) {
	if l.router == nil || !l.routerClosed.IsZero() {
		return
	}
	w.mu.Lock()
	l.routerClosed = time.Now()
	if l.of.plan.Kind != shared && l.handlers > 0 { // the Subscriber ends, and with it the life
		if l.how != "" {
			w.mu.Unlock()
			return
		}
		l.how, l.closing = "closed", time.Now()
	}
	w.mu.Unlock()
	w.endSubscriptions(l, func(x *subscription) bool { return x.routed })
	err := w.timed(l.proc, "Router.Close", 10*time.Second, l.router.Close)
	w.mu.Lock()
	l.counted += undelivered(err)
	w.noteLocked("the router of %s closed: %v", l.proc.name, err)
	if l.how == "closed" {
		l.closed, l.closeErr = time.Now(), err
	}
	w.mu.Unlock()
	if l.of.plan.Kind != shared {
		w.closeRest(l, 1)
	}
}

// closeReceiver closes a process's Subscribers, in turn or not at all, and its Manager.
func (w *world) closeReceiver(l *life, subscribersFirst bool, n int) {
	w.mu.Lock()
	if l.how != "" {
		w.mu.Unlock()
		return
	}
	l.how, l.closing = "closed", time.Now()
	w.mu.Unlock()
	if l.router != nil && subscribersFirst {
		w.closeRouterOnly(l)
	}
	if subscribersFirst {
		for _, s := range l.subs {
			w.closeSubscriber(s, n)
		}
	}
	w.endSubscriptions(l, func(*subscription) bool { return true })
	w.closeRest(l, n)
}

func (w *world) closeRouterOnly(l *life) {
	if !l.routerClosed.IsZero() {
		return
	}
	l.routerClosed = time.Now()
	w.endSubscriptions(l, func(x *subscription) bool { return x.routed })
	err := w.timed(l.proc, "Router.Close", 10*time.Second, l.router.Close)
	w.mu.Lock()
	l.counted += undelivered(err)
	w.noteLocked("the router of %s closed: %v", l.proc.name, err)
	w.mu.Unlock()
}

// closeRest closes what a life's end consists of, whatever its kind.
func (w *world) closeRest(l *life, n int) {
	var err error
	switch l.of.plan.Kind {
	case shared:
		err = w.closeAll(l.proc, "Manager.Close", n, w.managerCloseTimeout(), l.manager.Close)
	case private:
		err = w.closeAll(l.proc, "Subscriber.Close (private)", n, l.subs[0].plan.CloseTimeout, l.subs[0].api.Close)
	case pubsub:
		bound := l.subs[0].plan.CloseTimeout + w.managerCloseTimeout()
		if l.local != nil {
			bound += l.local.plan.CloseTimeout
		} else {
			bound += 5 * time.Second
		}
		bound += w.marshaling(40)
		err = w.closeAll(l.proc, "PubSub.Close", n, bound, l.ps.Close)
	}
	w.mu.Lock()
	l.counted += undelivered(err)
	l.closed, l.closeErr = time.Now(), err
	w.noteLocked("%s closed: %v", l.proc.name, err)
	w.mu.Unlock()
	w.endGuests(l, "closed", err)
	if l.router != nil {
		go func() { _ = l.router.Close() }()
	}
}

// endGuests ends the senders that lived with a receiver.
func (w *world) endGuests(l *life, how string, err error) {
	for _, s := range w.senders {
		g := s.life
		if g == nil || g.within != l || !w.beginEnd(g, how) {
			continue
		}
		w.mu.Lock()
		g.ended = time.Now()
		g.counted += undelivered(err)
		w.mu.Unlock()
		go func() {
			for _, p := range g.pubs {
				if p.pub == nil {
					_ = p.api.Close()
				}
				w.endLanes(p)
			}
		}()
	}
}

// killReceiver ends a process as kill -9 does.
func (w *world) killReceiver(l *life, silent bool) {
	w.mu.Lock()
	if !l.killed.IsZero() || l.how != "" && !l.closed.IsZero() {
		w.mu.Unlock()
		return
	}
	l.how, l.killed, l.silent = "killed", time.Now(), silent
	w.noteLocked("receiver %s is killed, silently %v", l.proc.name, silent)
	w.mu.Unlock()
	w.net.kill(l.proc, silent)
	w.endGuests(l, "killed", nil)
	go w.buryReceiver(l) // what is left of it does not matter, but must go
}

func (w *world) buryReceiver(l *life) {
	if l.router != nil {
		go func() { _ = l.router.Close() }()
	}
	for _, s := range l.subs {
		_ = s.api.Close()
	}
	if l.manager != nil {
		_ = l.manager.Close()
	}
}
