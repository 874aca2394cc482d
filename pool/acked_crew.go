package pool

import (
	"sync"
	"sync/atomic"
)

// crewSize is how many of a crew's goroutines stay when they have nothing to do.
const crewSize = 4

// crew has goroutines for a Manager's flushers. A few of them stay: a new one would first have to grow its stack, at every
// message of a conversation. Nil starts a new one each time.
type crew struct {
	jobs chan *flusher
	idle atomic.Int32
	stop chan struct{}
	wg   sync.WaitGroup
}

func newCrew() *crew { return &crew{jobs: make(chan *flusher), stop: make(chan struct{})} }

// run runs a flusher in a goroutine that has nothing to do, or in a new one.
func (c *crew) run(f *flusher) {
	if c == nil {
		go f.run() // ends by itself when nothing is left to flush; the flusher's close waits for that
		return
	}
	select {
	case c.jobs <- f:
	default:
		c.wg.Go(func() { c.work(f) }) // ends when too many have nothing to do, or with close
	}
}

func (c *crew) work(f *flusher) {
	for {
		f.run()
		if c.idle.Add(1) > crewSize {
			c.idle.Add(-1)
			return
		}
		select {
		case f = <-c.jobs:
			c.idle.Add(-1)
		case <-c.stop:
			return
		}
	}
}

// close ends the goroutines. Every flusher must be closed by then.
func (c *crew) close() {
	close(c.stop)
	c.wg.Wait()
}
