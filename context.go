package buffstreams

import (
	"context"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// messageContext is the context of one delivery: cancelled when the delivery ends. Most handlers never ask for Done, so
// the channel and its ties to the parent are made only when somebody does. From then on everything is answered by a
// context of the standard library, which children can attach to without a goroutine.
type messageContext struct {
	of       *subscription // whose base is the parent
	delivery dispatch.Delivery

	mu    sync.Mutex
	ended bool
	asked *cancelContext // nil until Done was called
}

// cancelContext is what context.WithCancel returns.
type cancelContext struct {
	context.Context
	cancel context.CancelFunc
}

type positionKey struct{}

// PositionFromContext returns where a received message stands in its publisher's stream, for handlers that store it with
// their effect: see pool.DedupeStore. ok is false for a context that is not of a message from the acked wire.
func PositionFromContext(ctx context.Context) (p pool.Position, ok bool) {
	p, ok = ctx.Value(positionKey{}).(pool.Position)
	return p, ok
}

func (c *messageContext) position() any {
	source, sequence := c.delivery.Origin()
	if s, ok := source.(interface{ Position(uint64) pool.Position }); ok {
		return s.Position(sequence)
	}
	return nil
}

// end cancels the context and returns its delivery.
func (c *messageContext) end() dispatch.Delivery {
	c.mu.Lock()
	c.ended = true
	asked := c.asked
	c.mu.Unlock()
	if asked != nil {
		asked.cancel()
	}
	return c.delivery
}

func (c *messageContext) Deadline() (time.Time, bool) { return c.of.base.Deadline() }

func (c *messageContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asked == nil {
		ctx, cancel := context.WithCancel(c.of.base)
		if c.asked = (&cancelContext{ctx, cancel}); c.ended {
			cancel()
		}
	}
	return c.asked.Done()
}

func (c *messageContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return context.Canceled
	}
	return c.of.base.Err()
}

func (c *messageContext) Value(key any) any {
	if key == (positionKey{}) {
		return c.position()
	}
	c.mu.Lock()
	asked := c.asked
	c.mu.Unlock()
	if asked != nil {
		return asked.Value(key)
	}
	return c.of.base.Value(key)
}
