package sender

import (
	"sync/atomic"
	"time"
)

const (
	// tickInterval is how often links look for what is due: it is the precision of their time-outs.
	tickInterval = 100 * time.Millisecond
	// seldomInterval is how often they do when nothing is under way, unless they have to ping more often.
	idleInterval = time.Second
)

// clock ticks for a Manager's links: often while something is under way, seldom otherwise.
type Ticker struct {
	idle   time.Duration
	asleep atomic.Bool
	woken  chan struct{}
}

func NewTicker(pingAfter time.Duration) *Ticker {
	return &Ticker{idle: max(tickInterval, min(idleInterval, pingAfter/4)), woken: make(chan struct{}, 1)}
}

// wake is called when something gets under way.
func (k *Ticker) wake() {
	if k.asleep.Load() && k.asleep.CompareAndSwap(true, false) {
		select {
		case k.woken <- struct{}{}:
		default:
		}
	}
}

// run calls tick, which tells whether something is under way, until stop is closed.
func (k *Ticker) Run(stop <-chan struct{}, tick func(now time.Time) (busy bool)) {
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
				timer.Reset(k.idle)
			}
		case <-k.woken:
			timer.Reset(tickInterval)
		case <-stop:
			return
		}
	}
}
