package sender

import (
	"sync/atomic"
	"time"
)

const (
	// busyInterval is the precision of time-outs while something is under way.
	busyInterval = 100 * time.Millisecond
	// idleInterval is for the rest of the time, unless pings have to be more frequent.
	idleInterval = time.Second
)

// Ticker tells the owner of many Senders when to call their Tick: often while something is under way, seldom when all
// are idle, as thousands of idle connections would keep a processor busy otherwise.
type Ticker struct {
	idleInterval time.Duration
	idle         atomic.Bool
	wakes        chan struct{}
}

// NewTicker returns a Ticker for Senders that ping after so much silence.
func NewTicker(pingAfter time.Duration) *Ticker {
	return &Ticker{idleInterval: max(busyInterval, min(idleInterval, pingAfter/4)), wakes: make(chan struct{}, 1)}
}

// wake shortens the interval, as something gets under way.
func (t *Ticker) wake() {
	if t.idle.Load() && t.idle.CompareAndSwap(true, false) {
		select {
		case t.wakes <- struct{}{}:
		default:
		}
	}
}

// Run calls tick, which tells whether something is under way, until stop is closed. It is called once.
func (t *Ticker) Run(stop <-chan struct{}, tick func(now time.Time) (busy bool)) {
	timer := time.NewTimer(busyInterval)
	defer timer.Stop()
	for {
		select {
		case now := <-timer.C:
			t.idle.Store(true) // before tick looks: what gets under way meanwhile wakes
			if tick(now) {
				t.idle.Store(false)
				timer.Reset(busyInterval)
			} else {
				timer.Reset(t.idleInterval)
			}
		case <-t.wakes:
			timer.Reset(busyInterval)
		case <-stop:
			return
		}
	}
}
