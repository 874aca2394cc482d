package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/route"
)

const (
	// refreshEvery is about the time between two lookups of a topic that is in use.
	refreshEvery = 30 * time.Second
	// refreshLeast is the least time between them, however many addresses fail.
	refreshLeast = time.Second
	// lookupTimeout bounds the context of a lookup. The first of a topic has PublishTimeout too.
	lookupTimeout = 10 * time.Second
	// lookupPause is the wait before the first lookup of a topic is tried again, where the DNS has failed.
	lookupPause = 200 * time.Millisecond
)

// refresh is when a topic is looked up again. The Publisher's mu guards it.
type refresh struct {
	at       time.Time          // of the next lookup
	last     time.Time          // of the last one
	watching context.CancelFunc // of Watch, if the Resolver has that and it is under way
	watched  bool               // Watch has told something and goes on: no lookup is needed
	lost     bool               // an address was lost since the last one began: its answer may be older
	failed   error              // of the last lookup; nil: it found a route, or Watch has told one
	failing  time.Time          // since when lookups fail
}

// noteLocked notes the outcome of a lookup. The caller must hold the Publisher's mu.
func (r *refresh) noteLocked(err error, now time.Time) {
	switch {
	case err == nil:
		r.failing = time.Time{}
	case r.failed == nil:
		r.failing = now
	}
	r.failed = err
}

// lostLocked has the topic looked up soon, as an address of its route is lost. The caller must hold the Publisher's mu.
func (r *refresh) lostLocked() {
	r.lost = true
	if soon := r.last.Add(refreshLeast); soon.Before(r.at) {
		r.at = soon
	}
}

// endWatchLocked ends Watch. The caller must hold the Publisher's mu.
func (r *refresh) endWatchLocked() {
	if r.watching != nil {
		r.watching()
	}
}

// lookup is a call of the Resolver.
type lookup struct {
	done  chan struct{} // closed when the fields below are final
	route route.Route
	err   error
}

// errResolving is what a call waited for whose time was over.
var errResolving = errors.New("the Resolver has not answered")

// lookUp returns the route of a topic that names no address, as the Resolver says. It waits as long as w allows, and
// tries again while the DNS fails. Calls for one topic share a lookup, so that a Resolver that does not return keeps
// one goroutine for each topic.
func (p *Publisher) lookUp(w *callWait, s *topicState) (route.Route, error) {
	if p.cfg.Resolver == nil {
		return route.Route{}, fmt.Errorf("%w: %.200q is not an address; set PublisherConfig.Resolver", ErrBadTopic, s.topic)
	}
	if static, ok := p.cfg.Resolver.(route.Static); ok {
		found, err := static.Resolve(p.ctx, s.topic)
		return checkRoute(s.topic, found, err)
	}
	why := errResolving
	explain := func() error { return why }
	for {
		p.mu.Lock()
		l := p.lookupLocked(s)
		p.mu.Unlock()
		if err := w.wait(l.done, time.Time{}, explain); err != nil {
			return route.Route{}, resolving(err, why)
		}
		failed := (*net.DNSError)(nil)
		if !errors.As(l.err, &failed) {
			return checkRoute(s.topic, l.route, l.err)
		}
		why = l.err
		if err := w.wait(nil, time.Now().Add(lookupPause), explain); err != nil {
			return route.Route{}, resolving(err, why)
		}
	}
}

// resolving says what a wait that has ended was for.
func resolving(err, cause error) error {
	if errors.Is(err, ErrTimeout) {
		return &TimeoutError{Cause: cause}
	}
	return err
}

// lookupLocked returns the lookup of a topic that is under way, and begins one where there is none. The caller must
// hold mu.
func (p *Publisher) lookupLocked(s *topicState) *lookup {
	if s.lookup != nil {
		return s.lookup
	}
	l := &lookup{done: make(chan struct{})}
	s.lookup, s.lost = l, false
	go func() { // ends when the Resolver returns; its context ends with Close
		began := time.Now()
		ctx, cancel := context.WithTimeout(p.ctx, lookupTimeout)
		defer cancel()
		l.err = errResolving // which stays if the Resolver ends the goroutine, as a test's FailNow does
		defer func() {
			_, failed := checkRoute(s.topic, l.route, l.err)
			p.mu.Lock()
			s.lookup, s.last = nil, time.Now()
			s.noteLocked(failed, s.last)
			s.at = s.last.Add(refreshEvery*4/5 + rand.N(refreshEvery*2/5)) //nolint:gosec // spreads load
			if s.lost {
				s.lostLocked()
			}
			p.mu.Unlock()
			took := time.Since(began)
			close(l.done)
			p.manager.hooks.Resolved(hooks.Resolved{
				Topic: s.topic, Addresses: len(l.route.Addresses), Took: took, Err: l.err,
			})
		}()
		l.err = hook.Call("the Resolver", func() (err error) {
			l.route, err = p.cfg.Resolver.Resolve(ctx, s.topic)
			return err
		})
	}()
	return l
}

// refresh makes what a lookup in the background has found the topic's route.
func (p *Publisher) refresh(s *topicState, l *lookup) {
	<-l.done
	if !p.enter(s) {
		return
	}
	defer p.end(s)
	found, err := checkRoute(s.topic, l.route, l.err)
	_ = p.renew(s, found, err)
}

// renew makes found the topic's route if err is nil. An error, which is logged, keeps the route.
func (p *Publisher) renew(s *topicState, found route.Route, err error) error {
	if err == nil {
		err = p.change(s, found)
	}
	p.mu.Lock()
	s.noteLocked(err, time.Now())
	p.mu.Unlock()
	if err == nil || p.ctx.Err() != nil {
		return err
	}
	if count, ok := p.lookups.Say(s.topic + ": " + err.Error()); ok {
		p.logger.Error("The route of a topic cannot be looked up; the last one is kept", err, watermill.LogFields{
			"provider": provider, "topic": netio.Quote(s.topic), "count": count,
		})
	}
	return err
}

// refreshDue begins the lookups and the watch that are due.
func (p *Publisher) refreshDue(s *topicState, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.calls.Load() < 0 || p.closed.Load() || s.watched || s.lookup != nil || now.Before(s.at) {
		return
	}
	l := p.lookupLocked(s)
	go p.refresh(s, l) // ends with the lookup
	p.watchLocked(s)
}

// watchLocked begins to watch a topic, if the Resolver can. The caller must hold mu.
func (p *Publisher) watchLocked(s *topicState) {
	watcher, ok := p.cfg.Resolver.(route.Watcher)
	if !ok || s.watching != nil {
		return
	}
	ctx, cancel := context.WithCancel(p.ctx)
	s.watching = cancel
	go func() { // ends when Watch returns, whose context ends with Close and with the topic
		defer func() { // also if Watch ends the goroutine
			cancel() // before it is noted: an update that is under way still changes nothing behind that
			p.watchEnded(s)
		}()
		_ = hook.Call("the Resolver's Watch", func() error { // why it ended does not matter: Resolve is asked from now on
			return watcher.Watch(ctx, s.topic, func(r route.Route) {
				if ctx.Err() != nil || !p.enter(s) {
					return
				}
				defer p.end(s)
				found, err := checkRoute(s.topic, r, nil)
				if p.renew(s, found, err) == nil {
					p.noteWatched(ctx, s)
				}
			})
		})
	}()
}

// noteWatched notes that Watch has told a route, unless it has ended: ctx is its own.
func (p *Publisher) noteWatched(ctx context.Context, s *topicState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ctx.Err() == nil {
		s.watched = true
	}
}

// watchEnded has Resolve asked from now on.
func (p *Publisher) watchEnded(s *topicState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.watching, s.watched = nil, false
}

// addressLost has the topics looked up soon that have an address which is lost.
func (p *Publisher) addressLost(a *address) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.routed {
		r := s.resolved.Load()
		if !r.dynamic {
			continue
		}
		for _, t := range r.targets {
			if t.addr == a {
				s.lostLocked()
			}
		}
	}
}

// checkRoute refuses what a Resolver must not return.
func checkRoute(topic string, r route.Route, err error) (route.Route, error) {
	if errors.Is(err, route.ErrNoRoute) {
		return r, fmt.Errorf("%w: %w", ErrBadTopic, err)
	}
	if err == nil {
		if invalid := r.Validate(); invalid != nil {
			return r, fmt.Errorf("%w: the route of %.200q: %w", ErrBadTopic, topic, invalid)
		}
	}
	return r, err
}
