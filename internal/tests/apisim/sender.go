package apisim

import (
	"fmt"
	"time"
)

// sender is a publishing side through all of its processes.
type sender struct {
	n        int
	plan     senderPlan
	dir      string // of its outbox
	copied   string // a copy of that
	copiedAt time.Time
	restored time.Time // when the copy took its place
	boxes    int
	life     *senderLife
}

// senderLife is one process of a sender.
type senderLife struct {
	of      *sender
	n       int
	proc    *process
	within  *life   // the receiver's, whose Manager or PubSub it uses
	manager manager // nil: each publisher has its own
	box     box
	pubs    []*publisher
	closing time.Time // it has begun to end
	ended   time.Time
	how     string // "killed" or "closed"
	counted int    // undelivered messages, as its Closes said
	back    int    // messages that no receiver was known to hold when it was killed: what was confirmed can be among them, if it was to move
}

// boxed reports whether its messages are on disk.
func (l *senderLife) boxed() bool { return l.box != nil }

// publisher is one Publisher of a process.
type publisher struct {
	life  *senderLife
	n     int
	plan  publisherPlan
	api   api
	pub   both // the PubSub that it is a part of
	lanes map[string]*lane

	closing, closed time.Time
	closeErr        error
}

func (p *publisher) name() string { return fmt.Sprintf("s%d.%d.p%d", p.life.of.n, p.life.n, p.n) }

// call is how a call is named.
func (p *publisher) call(name string) string {
	if p.plan.Plain {
		return name + " (plain wire)"
	}
	return name
}

func (p *publisher) sent() *senderLife { return p.life }

// startSender begins a life. A sender that shares a receiver's Manager lives with it.
func (w *world) startSender(s *sender) {
	n := 0
	if s.life != nil {
		n = s.life.n + 1
	}
	l := &senderLife{of: s, n: n}
	l.proc = &process{name: fmt.Sprintf("s%d.%d", s.n, n)}
	var err error
	switch {
	case s.plan.With >= 0:
		r := w.receivers[s.plan.With]
		if r.life == nil || r.life.ended() || r.plan.Kind == private {
			return
		}
		l.within, l.proc, l.manager = r.life, r.life.proc, r.life.manager
	case s.plan.Shared:
		if l.manager, err = w.newManager(l.proc, 0, nil, nil); err != nil {
			panic(err)
		}
	}
	if s.plan.Outbox {
		if l.box, err = openBox(s.dir); err != nil {
			w.violated(8, "an outbox cannot be opened again", "%v", err)
			return
		}
	}
	w.mu.Lock()
	s.life = l
	w.mu.Unlock()
	for i, plan := range s.plan.Pubs {
		p := &publisher{life: l, n: i, plan: plan, lanes: map[string]*lane{}}
		if l.within != nil && l.within.ps != nil {
			p.api, p.pub = l.within.ps, l.within.ps
			p.plan = l.within.pubPlan
			w.mu.Lock()
			l.within.local = p
			w.mu.Unlock()
		} else if p.api, err = w.newPublisher(p); err != nil {
			panic(err)
		}
		w.mu.Lock()
		l.pubs = append(l.pubs, p)
		w.mu.Unlock()
		if p.pub != nil {
			break
		}
	}
	w.note("sender %s begins", l.proc.name)
}
