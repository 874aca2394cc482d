package measure

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Pace is how many messages were confirmed in which time.
type Pace struct {
	Messages int
	Elapsed  time.Duration
}

// PerSecond is the rate, 0 if no time went by.
func (p Pace) PerSecond() float64 {
	if p.Elapsed <= 0 {
		return 0
	}
	return float64(p.Messages) / p.Elapsed.Seconds()
}

// Publish lets every sender of the ledger publish one message after the other, each waiting for its confirmation, and
// returns the pace over d, after an eighth of d that does not count; over as many times d as it takes where nothing is
// confirmed in one. All that was confirmed, also outside of that time, is in the ledger. The first error of send ends
// it. A message is only valid during send.
func Publish(ctx context.Context, l *Ledger, d time.Duration, send func(sender int, message []byte) error) (Pace, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var confirmed atomic.Int64
	var stop atomic.Bool
	var wg sync.WaitGroup
	for s := range l.sent {
		wg.Go(func() { // ends with stop, or an error
			message := make([]byte, 0, l.size)
			for !stop.Load() {
				if err := send(s, l.Message(message, s)); err != nil {
					cancel(err)
					return
				}
				l.Confirm(s, 1)
				confirmed.Add(1)
			}
		})
	}
	pause(ctx, d/8)
	before, start := confirmed.Load(), time.Now()
	for pause(ctx, d); confirmed.Load() == before && ctx.Err() == nil; {
		pause(ctx, d)
	}
	pace := Pace{Messages: int(confirmed.Load() - before), Elapsed: time.Since(start)}
	stop.Store(true)
	wg.Wait()
	return pace, context.Cause(ctx)
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
