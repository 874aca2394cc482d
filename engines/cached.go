package engines

import (
	"context"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/route"
)

// lookupInterval is how long the result of a lookup is used.
const lookupInterval = 30 * time.Second

// lookup keeps the route that a function found. An error keeps the last one.
type lookup struct {
	find func(context.Context) (route.Route, error)

	mu    sync.Mutex
	last  route.Route // guarded by mu, as what follows
	until time.Time
	found bool
}

func cached(find func(context.Context) (route.Route, error)) route.Resolver {
	return &lookup{find: find}
}

// Resolve returns the route, which is the same for all topics. One caller looks it up, the others wait.
func (l *lookup) Resolve(ctx context.Context, _ string) (route.Route, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Now().Before(l.until) {
		return l.last, nil
	}
	r, err := l.find(ctx)
	switch {
	case err == nil:
		l.last, l.found, l.until = r, true, time.Now().Add(lookupInterval)
	case l.found:
		l.until = time.Now().Add(time.Second)
	default:
		return r, err
	}
	return l.last, nil
}
