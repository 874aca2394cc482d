package route

import (
	"context"
	"sync"
	"time"
)

const (
	// lookupTimeout bounds a lookup that no caller may be waiting for any more.
	lookupTimeout = 10 * time.Second
	// reuseFor is how long the result of a lookup is given to other callers: the topics of a Publisher are refreshed one
	// after the other, and have one set.
	reuseFor = 500 * time.Millisecond
)

// shared lets concurrent callers share a lookup. The zero value is ready to use.
type shared struct {
	mu     sync.Mutex // guards the fields below
	call   *call      // under way, or nil
	last   Route
	lastAt time.Time
}

// call is one lookup.
type call struct {
	done  chan struct{} // closed when the fields below are final
	route Route
	err   error
}

// do returns what lookUp returns, or the error of ctx if that is done before.
func (s *shared) do(ctx context.Context, lookUp func(context.Context) (Route, error)) (Route, error) {
	s.mu.Lock()
	if !s.lastAt.IsZero() && time.Since(s.lastAt) < reuseFor {
		defer s.mu.Unlock()
		return s.last.Clone(), nil
	}
	c := s.call
	if c == nil {
		c = &call{done: make(chan struct{})}
		s.call = c
		go s.run(c, context.WithoutCancel(ctx), lookUp) // ends within lookupTimeout; the callers wait as long as they like
	}
	s.mu.Unlock()
	select {
	case <-c.done:
		return c.route.Clone(), c.err
	case <-ctx.Done():
		return Route{}, ctx.Err()
	}
}

func (s *shared) run(c *call, ctx context.Context, lookUp func(context.Context) (Route, error)) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	c.route, c.err = lookUp(ctx)
	s.mu.Lock()
	s.call = nil
	if c.err == nil {
		s.last, s.lastAt = c.route, time.Now()
	}
	s.mu.Unlock()
	close(c.done)
}
