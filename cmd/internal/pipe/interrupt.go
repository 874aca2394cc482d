package pipe

import (
	"context"
	"errors"
)

// Interrupted returns a context that ends when ctx is cancelled, and not with its deadline: a time-out of the call itself
// knows more of why its time was not enough. The caller must call stop.
func Interrupted(ctx context.Context) (interrupted context.Context, stop func()) {
	interrupted, interrupt := context.WithCancel(context.Background())
	forget := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			interrupt()
		}
	})
	return interrupted, func() { forget(); interrupt() }
}
