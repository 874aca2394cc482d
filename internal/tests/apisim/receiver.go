package apisim

import (
	"fmt"
	"slices"
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
	failing int       // calls of its OnFailure that run
	failed  time.Time // when one has returned last
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

// impatient tells that some of its Subscribers give up on handlers: what others of a group then get has more attempts
// than any handler has nacked.
func (r *receiver) impatient() bool {
	return slices.ContainsFunc(r.plan.Subs, func(s subscriberPlan) bool { return s.AckWait > 0 })
}
