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
	parent   context.Context
	delivery dispatch.Delivery // zero once it has ended, so that a message that is kept does not keep others
	source   dispatch.Source
	sequence uint64

	mu     sync.Mutex
	ended  bool
	inner  context.Context // nil until Done was called
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
	if s, ok := c.source.(interface{ Position(uint64) pool.Position }); ok {
		return s.Position(c.sequence)
	}
	return nil
}

// end cancels the context and returns its delivery.
func (c *messageContext) end() dispatch.Delivery {
	d := c.delivery
	c.delivery = dispatch.Delivery{}
	c.mu.Lock()
	c.ended = true
	cancel := c.cancel
	c.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	return d
}

func (c *messageContext) Deadline() (time.Time, bool) { return c.parent.Deadline() }

func (c *messageContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inner == nil {
		c.inner, c.cancel = context.WithCancel(c.parent)
		if c.ended {
			c.cancel()
		}
	}
	return c.inner.Done()
}

func (c *messageContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return context.Canceled
	}
	return c.parent.Err()
}

func (c *messageContext) Value(key any) any {
	if key == (positionKey{}) {
		return c.position()
	}
	c.mu.Lock()
	inner := c.inner
	c.mu.Unlock()
	if inner != nil {
		return inner.Value(key)
	}
	return c.parent.Value(key)
}
