package apisim

import (
	"fmt"
	"time"
)

// receiver is a receiving side through all of its processes.
type receiver struct {
	n     int
	plan  receiverPlan
	store *memStore // nil: it has none
	limit int       // MaxMessageSize; 0: the default
	life  *life
	lives []*life
	w     *world
}

// topics are the names that its topics have on the wire. The ephemeral one is last.
func (r *receiver) topics(ephemeral bool) (names []string) {
	for t := range r.w.p.Shape.Topics {
		names = append(names, fmt.Sprintf("t%d", t))
	}
	for _, s := range r.plan.Subs {
		if s.Ephemeral && ephemeral {
			return append(names, "e")
		}
	}
	return names
}

// life is one process of a receiver.
type life struct {
	of      *receiver
	n       int
	proc    *process
	limit   int
	groups  map[string][]string // declared
	store   *storeView
	manager manager // nil: its only Subscriber has its own
	ps      both
	local   *publisher // of the PubSub
	pubPlan publisherPlan
	subs    []*subscriber
	router  *router
	topics  map[string]*topicState

	began, closing, closed, killed time.Time
	how                            string // "killed" or "closed"
	silent                         bool
	closeErr                       error
	counted                        int // undelivered messages, as its Closes said
	handlers                       int // of the router
	routerClosed                   time.Time
}

func (l *life) ended() bool { return l.how != "" }

// topicState is what the model knows of a topic in one life.
type topicState struct {
	groups  map[string]time.Time // named ones that exist, and since when
	dropped map[string]bool
	drops   int             // of groups
	unnamed bool            // initialized without a group
	unions  []union         // of unnamed subscriptions that ended last
	subs    []*subscription // all there ever were
}

func (l *life) topic(name string) *topicState {
	t := l.topics[name]
	if t == nil {
		t = &topicState{groups: map[string]time.Time{}, dropped: map[string]bool{}}
		l.topics[name] = t
	}
	return t
}

// union is what the last unnamed subscription of a topic left behind when it ended.
type union struct {
	at   time.Time
	msgs []*msg
}

// subscriber is one Subscriber of a process.
type subscriber struct {
	life    *life
	n       int
	plan    subscriberPlan
	api     subscribing
	closing time.Time
	closed  time.Time
	failing int // calls of its OnFailure that run
}

// startReceiver begins a life.
func (w *world) startReceiver(r *receiver) {
	l := &life{of: r, n: len(r.lives), limit: r.limit, topics: map[string]*topicState{}, began: time.Now()}
	l.proc = &process{name: fmt.Sprintf("r%d.%d", r.n, l.n)}
	if r.store != nil {
		l.store = &storeView{of: r.store, proc: l.proc}
	}
	if r.plan.Declared {
		l.groups = map[string][]string{}
		for _, name := range r.topics(false) {
			l.groups[name] = r.groups()
		}
	}
	var err error
	if r.plan.Kind == shared {
		if l.manager, err = w.newManager(l.proc, l.limit, l.groups, l.store); err != nil {
			panic(err)
		}
	}
	for i, plan := range r.plan.Subs {
		if !w.addSubscriber(l, i, plan) {
			return
		}
	}
	if r.plan.Router {
		l.router = newRouter(10*time.Second, w.random(r.n, l.n).IntN(2) == 0)
	}
	w.mu.Lock()
	r.life, r.lives = l, append(r.lives, l)
	w.noteLocked("receiver %s begins (%s)", l.proc.name, r.plan.Kind)
	w.mu.Unlock()
	for _, s := range w.senders {
		if s.plan.With == r.n && r.plan.Kind != private {
			w.startSender(s)
		}
	}
}

// addSubscriber makes a Subscriber of a life.
func (w *world) addSubscriber(l *life, n int, plan subscriberPlan) bool {
	s := &subscriber{life: l, n: n, plan: plan}
	var err error
	if l.of.plan.Kind == pubsub {
		var p *publisher
		for _, x := range w.senders {
			if x.plan.With == l.of.n && p == nil {
				p = &publisher{life: &senderLife{of: x, proc: l.proc}, plan: x.plan.Pubs[0]}
				p.plan.Plain, l.pubPlan = false, p.plan
			}
		}
		l.ps, err = w.newPubSub(s, p)
		s.api = l.ps
	} else {
		s.api, err = w.newSubscriber(s)
	}
	if err != nil {
		w.note("%s cannot begin: %v", l.proc.name, err)
		return false
	}
	w.mu.Lock()
	l.subs = append(l.subs, s)
	w.mu.Unlock()
	return true
}

// groups are the names of a receiver's groups.
func (r *receiver) groups() (names []string) {
	seen := map[string]bool{}
	for _, s := range r.plan.Subs {
		if s.Group != "" && !s.Ephemeral && !seen[s.Group] {
			seen[s.Group] = true
			names = append(names, s.Group)
		}
	}
	return names
}

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
		err = w.closeAll(l.proc, "Manager.Close", n, managerCloseTimeout, l.manager.Close)
	case private:
		err = w.closeAll(l.proc, "Subscriber.Close (private)", n, l.subs[0].plan.CloseTimeout, l.subs[0].api.Close)
	case pubsub:
		bound := l.subs[0].plan.CloseTimeout + managerCloseTimeout
		if l.local != nil {
			bound += l.local.plan.CloseTimeout
		} else {
			bound += 5 * time.Second
		}
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
	if l.how != "" && !l.closed.IsZero() {
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
