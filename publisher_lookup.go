package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// lookup is a call of the Resolver.
type lookup struct {
	done  chan struct{} // closed when the fields below are final
	route route.Route
	err   error
}

// lookUp returns the route of a topic that names no address. It waits for the Resolver up to PublishTimeout. Calls for one
// topic share a lookup, so that a Resolver that does not return keeps one goroutine for each topic.
func (p *Publisher) lookUp(s *topicState) (route.Route, error) {
	if p.cfg.Resolver == nil {
		return route.Route{}, fmt.Errorf("%w: %.200q is not an address; set PublisherConfig.Resolver", ErrBadTopic, s.topic)
	}
	if static, ok := p.cfg.Resolver.(route.Static); ok {
		found, err := static.Resolve(p.ctx, s.topic)
		return checkRoute(s.topic, found, err)
	}
	ctx := p.ctx
	if p.cfg.PublishTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.cfg.PublishTimeout)
		defer cancel()
	}
	l := p.lookup(s)
	select {
	case <-l.done:
		return checkRoute(s.topic, l.route, l.err)
	case <-ctx.Done():
	}
	if p.ctx.Err() != nil {
		return route.Route{}, ErrPublisherClosed
	}
	return route.Route{}, &TimeoutError{Cause: errResolving}
}

var errResolving = errors.New("the Resolver has not answered")

// lookup returns the lookup of a topic that is under way, and begins one where there is none.
func (p *Publisher) lookup(s *topicState) *lookup {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.lookup != nil {
		return s.lookup
	}
	l := &lookup{done: make(chan struct{})}
	s.lookup = l
	go func() { // ends when the Resolver returns; its context ends with Close
		began := time.Now()
		l.err = hook.Call("the Resolver", func() (err error) {
			l.route, err = p.cfg.Resolver.Resolve(p.ctx, s.topic)
			return err
		})
		p.mu.Lock()
		s.lookup = nil
		p.mu.Unlock()
		took := time.Since(began)
		close(l.done)
		p.manager.hooks.Resolved(hooks.Resolved{
			Topic: s.topic, Addresses: len(l.route.Addresses), Took: took, Err: l.err,
		})
	}()
	return l
}

// checkRoute refuses what a Resolver must not return.
func checkRoute(topic string, r route.Route, err error) (route.Route, error) {
	switch {
	case errors.Is(err, route.ErrNoRoute):
		return r, fmt.Errorf("%w: %w", ErrBadTopic, err)
	case err == nil && len(r.Addresses) == 0:
		return r, fmt.Errorf("%w: the route of %.200q has no address", ErrBadTopic, topic)
	case err == nil && (r.Policy < route.Failover || r.Policy > route.All):
		return r, fmt.Errorf("%w: the route of %.200q has an unknown policy, %d", ErrBadTopic, topic, r.Policy)
	}
	return r, err
}
