package outbox

import "context"

// Deliver waits until nobody else delivers this outbox, and takes that duty: one deliverer at a time keeps the order of
// each stream. The caller gives it back with release.
func (o *Outbox) Acquire(ctx context.Context) (release func(), err error) {
	select {
	case o.deliverer <- struct{}{}:
		return func() { <-o.deliverer }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Err is ErrClosed after Close, an error that wraps ErrFailed after a failed write, and nil before.
func (o *Outbox) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.usable()
}
