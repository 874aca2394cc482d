package buffstreams

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// messageContext is the context of one delivery, cancelled when the delivery ends. Most handlers never call Done, so
// the channel and its tie to the parent are made by the first call. From then on a context of the standard library
// answers everything; children attach to that without a goroutine.
type messageContext struct {
	sub      *subscription // its base is the parent
	delivery dispatch.Delivery
	std      atomic.Pointer[cancelContext] // nil before Done; canceledContext if the delivery ended first
	delay    atomic.Int64                  // see RedeliverAfter: a nanosecond more; 0: it was not called
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

// canceledContext is shared by all deliveries that ended before Done was called.
var canceledContext = func() *cancelContext {
	c := newCancelContext(context.Background())
	c.cancel()
	return c
}()

type positionKey struct{}

// PositionFromContext returns where a received message stands in its publisher's stream, for handlers that store it
// with their effect: see store.DedupeStore. ok is false for a context that is not of a message from the acked wire.
func PositionFromContext(ctx context.Context) (p store.Position, ok bool) {
	p, ok = ctx.Value(positionKey{}).(store.Position)
	return p, ok
}

type deliveryKey struct{}

// Delivery says how often a received message has been delivered to its consumer group.
type Delivery struct {
	// Attempt is the number of the delivery: 1, and 1 more for each delivery that ended with a Nack or in no time.
	Attempt int
	// Redelivered tells that the message may have been seen before: by a handler that did not ack it, or by a
	// subscription that ended, or that was offered it and has not taken it. A message that is not marked can be a
	// duplicate only where a listener without a DedupeStore was restarted, or an outbox took a new identity: see
	// docs/guarantees.md.
	Redelivered bool
	// MaybeDuplicate tells that the publisher had sent the message to another receiver, or to an earlier life of this
	// one, which did not say what became of it: a handler there may have handled it.
	MaybeDuplicate bool
	// Tenure is the number of places that the publisher's stream has had, this one included; 0 if that is not known.
	// With Position.Epoch before it, it fences: of two handlers that have a message of one stream, or of one key under
	// route.Hash, the one with the higher Tenure is the present one.
	Tenure uint64
}

// DeliveryFromContext returns what is known of a received message's delivery from the message's context. ok is false
// for any other context.
func DeliveryFromContext(ctx context.Context) (d Delivery, ok bool) {
	d, ok = ctx.Value(deliveryKey{}).(Delivery)
	return d, ok
}

type redeliverKey struct{}

// RedeliverAfter sets how long a received message waits before it is delivered again, if this delivery ends with a Nack
// or in no time: instead of NackResendSleep, and beyond NackResendCap if need be, as where a service says when it is to
// be asked again. 0 is at once, and a negative delay undoes an earlier call. It is for this delivery alone.
//
// ctx is the message's context, or one that was made of it, as the middlewares of a Router make them. ok is false for
// any other context, and when the delivery has ended: the call has no effect then. It may be called from any goroutine,
// and does not block.
//
// The message counts in MaxInFlight while it waits, and holds up the other messages of its key. MaxAttempts counts the
// delivery as any other; the wait is shortened where it would exceed MaxAge. It ends early, with the message given back
// to its group, when the subscription closes.
func RedeliverAfter(ctx context.Context, delay time.Duration) (ok bool) {
	c, ok := ctx.Value(redeliverKey{}).(*messageContext)
	if !ok || c.Err() != nil {
		return false
	}
	c.delay.Store(max(0, int64(min(delay, math.MaxInt64-1))+1))
	return true
}

// redeliverAfter is what RedeliverAfter has set.
func (c *messageContext) redeliverAfter() (delay time.Duration, ok bool) {
	n := c.delay.Load()
	return time.Duration(n - 1), n > 0
}

func (c *messageContext) position() any {
	source, sequence := c.delivery.Origin()
	if s, ok := source.(interface{ Position(uint64) store.Position }); ok {
		return s.Position(sequence)
	}
	return nil
}

func (c *messageContext) describe() Delivery {
	d := Delivery{
		Attempt: c.delivery.Attempt + 1, Redelivered: c.delivery.Redelivered, MaybeDuplicate: c.delivery.Elsewhere(),
	}
	source, _ := c.delivery.Origin()
	if s, ok := source.(interface{ Tenure() uint64 }); ok {
		d.Tenure = s.Tenure()
	}
	return d
}

// end cancels the context and returns its delivery, of which the context has the only copy.
func (c *messageContext) end() *dispatch.Delivery {
	if !c.std.CompareAndSwap(nil, canceledContext) {
		c.std.Load().cancel()
	}
	return &c.delivery
}

func (c *messageContext) Deadline() (time.Time, bool) { return c.sub.base.Deadline() }

func (c *messageContext) Done() <-chan struct{} {
	if std := c.std.Load(); std != nil {
		return std.Done()
	}
	if std := newCancelContext(c.sub.base); !c.std.CompareAndSwap(nil, std) {
		std.cancel()
	}
	return c.std.Load().Done()
}

func (c *messageContext) Err() error {
	if std := c.std.Load(); std != nil {
		return std.Err()
	}
	return c.sub.base.Err()
}

func (c *messageContext) Value(key any) any {
	switch key {
	case positionKey{}:
		return c.position()
	case redeliverKey{}:
		return c
	case deliveryKey{}:
		return c.describe()
	}
	if std := c.std.Load(); std != nil && std != canceledContext {
		return std.Value(key)
	}
	return c.sub.base.Value(key)
}
