package pool

import "sync"

// ending runs the end of something once. Later and concurrent calls wait for that and return the same. They wait on a
// channel and not, as with a sync.Once, for a mutex, under which the clock of a synctest bubble stands still. The zero
// value is ready.
type ending struct {
	mu   sync.Mutex    // guards done
	done chan struct{} // nil before the first call; closed when err is final
	err  error
}

func (e *ending) run(end func() error) error {
	if done, first := e.begin(); first {
		e.err = end()
		close(done)
	}
	<-e.done // does not change any more
	return e.err
}

func (e *ending) begin() (done chan struct{}, first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if first = e.done == nil; first {
		e.done = make(chan struct{})
	}
	return e.done, first
}
