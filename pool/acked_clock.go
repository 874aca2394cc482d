package pool

import (
	"sync/atomic"
	"time"
)

const (
	// tickInterval is how often links look for what is due: it is the precision of their time-outs.
	tickInterval = 100 * time.Millisecond
	// seldomInterval is how often they do when nothing is under way, unless they have to ping more often.
	seldomInterval = time.Second
)

// clock ticks for a Manager's links: often while something is under way, seldom otherwise.
type clock struct {
	seldom time.Duration
	asleep atomic.Bool
	rouse  chan struct{}
}

func newClock(pingAfter time.Duration) *clock {
	return &clock{seldom: max(tickInterval, min(seldomInterval, pingAfter/4)), rouse: make(chan struct{}, 1)}
}

// wake is called when something gets under way.
func (k *clock) wake() {
	if k.asleep.Load() && k.asleep.CompareAndSwap(true, false) {
		select {
		case k.rouse <- struct{}{}:
		default:
		}
	}
}

// run calls tick, which tells whether something is under way, until stop is closed.
func (k *clock) run(stop <-chan struct{}, tick func(now time.Time) (busy bool)) {
	timer := time.NewTimer(tickInterval)
	defer timer.Stop()
	for {
		select {
		case now := <-timer.C:
			k.asleep.Store(true) // before tick looks: what gets under way meanwhile rouses
			if tick(now) {
				k.asleep.Store(false)
				timer.Reset(tickInterval)
			} else {
				timer.Reset(k.seldom)
			}
		case <-k.rouse:
			timer.Reset(tickInterval)
		case <-stop:
			return
		}
	}
}
