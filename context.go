package buffstreams

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// messageContext is the context of one delivery: cancelled when the delivery ends. Most handlers never ask for Done, so
// the channel and its ties to the parent are made only when somebody does. From then on everything is answered by a
// context of the standard library, which children can attach to without a goroutine.
type messageContext struct {
	of       *subscription // whose base is the parent
	delivery dispatch.Delivery
	asked    atomic.Pointer[cancelContext] // nil until Done was called, or the delivery ended, which is when it is over
}

// cancelContext is what context.WithCancel returns.
type cancelContext struct {
	context.Context
	cancel context.CancelFunc
}

func newCancelContext(parent context.Context) *cancelContext {
	ctx, cancel := context.WithCancel(parent)
	return &cancelContext{ctx, cancel}
}

// over stands for a delivery that ended without anybody having asked.
var over = func() *cancelContext {
	c := newCancelContext(context.Background())
	c.cancel()
	return c
}()

type positionKey struct{}

// PositionFromContext returns where a received message stands in its publisher's stream, for handlers that store it with
// their effect: see store.DedupeStore. ok is false for a context that is not of a message from the acked wire.
func PositionFromContext(ctx context.Context) (p store.Position, ok bool) {
	p, ok = ctx.Value(positionKey{}).(store.Position)
	return p, ok
}

func (c *messageContext) position() any {
	source, sequence := c.delivery.Origin()
	if s, ok := source.(interface{ Position(uint64) store.Position }); ok {
		return s.Position(sequence)
	}
	return nil
}

// end cancels the context and returns its delivery.
func (c *messageContext) end() dispatch.Delivery {
	if !c.asked.CompareAndSwap(nil, over) {
		c.asked.Load().cancel()
	}
	return c.delivery
}

func (c *messageContext) Deadline() (time.Time, bool) { return c.of.base.Deadline() }

func (c *messageContext) Done() <-chan struct{} {
	if asked := c.asked.Load(); asked != nil {
		return asked.Done()
	}
	if asked := newCancelContext(c.of.base); !c.asked.CompareAndSwap(nil, asked) {
		asked.cancel()
	}
	return c.asked.Load().Done()
}

func (c *messageContext) Err() error {
	if asked := c.asked.Load(); asked != nil {
		return asked.Err()
	}
	return c.of.base.Err()
}

func (c *messageContext) Value(key any) any {
	if key == (positionKey{}) {
		return c.position()
	}
	if asked := c.asked.Load(); asked != nil && asked != over {
		return asked.Value(key)
	}
	return c.of.base.Value(key)
}
