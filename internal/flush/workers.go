package flush

import (
	"sync"
	"sync/atomic"
)

// crewSize is how many of a crew's goroutines stay when they have nothing to do.
const keptWorkers = 4

// crew has goroutines for a Manager's flushers. A few of them stay: a new one would first have to grow its stack, at every
// message of a conversation. Nil starts a new one each time.
type Workers struct {
	jobs chan *Flusher
	idle atomic.Int32
	stop chan struct{}
	wg   sync.WaitGroup
}

func NewWorkers() *Workers { return &Workers{jobs: make(chan *Flusher), stop: make(chan struct{})} }

// run runs a flusher in a goroutine that has nothing to do, or in a new one.
func (c *Workers) run(f *Flusher) {
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

func (c *Workers) work(f *Flusher) {
	for {
		f.run()
		if c.idle.Add(1) > keptWorkers {
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
func (c *Workers) Close() {
	close(c.stop)
	c.wg.Wait()
}
