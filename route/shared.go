package route

import (
	"context"
	"sync"
	"time"
)

const (
	// lookupTimeout bounds a lookup, whatever its callers' contexts say.
	lookupTimeout = 10 * time.Second
	// reuseFor is how long the result of a lookup is given to other callers: the topics of a Publisher are refreshed
	// one after the other, and have one set.
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
	cancel  context.CancelFunc
	waiting int           // callers; guarded by shared.mu
	done    chan struct{} // closed when the fields below are final
	route   Route
	err     error
}

// do returns what lookUp returns, or the error of ctx if that is done before. A lookup that no caller waits for any
// more is cancelled.
func (s *shared) do(ctx context.Context, lookUp func(context.Context) (Route, error)) (Route, error) {
	s.mu.Lock()
	if !s.lastAt.IsZero() && time.Since(s.lastAt) < reuseFor {
		defer s.mu.Unlock()
		return s.last.Clone(), nil
	}
	c := s.call
	if c == nil {
		c = &call{done: make(chan struct{})}
		var detached context.Context
		detached, c.cancel = context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		s.call = c
		go s.run(detached, c, lookUp) // ends with its context, which lasts no longer than a caller waits
	}
	c.waiting++
	s.mu.Unlock()
	defer s.leave(c)
	select {
	case <-c.done:
		return c.route.Clone(), c.err
	case <-ctx.Done():
		return Route{}, ctx.Err()
	}
}

// leave ends the wait of a caller.
func (s *shared) leave(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.waiting--; c.waiting > 0 {
		return
	}
	c.cancel()
	if s.call == c {
		s.call = nil
	}
}

func (s *shared) run(ctx context.Context, c *call, lookUp func(context.Context) (Route, error)) {
	c.route, c.err = lookUp(ctx)
	s.mu.Lock()
	if s.call == c {
		s.call = nil
	}
	if c.err == nil {
		s.last, s.lastAt = c.route, time.Now()
	}
	s.mu.Unlock()
	close(c.done)
}
