package batch

import (
	"context"
	"sync"
)

// watch ends the context of a handler when the subscriber gives up the first message that is not settled. A message's
// context ends with its ack too, which ends nothing else.
type watch struct {
	messages []pending // not changed before stop
	cancel   context.CancelFunc

	running sync.WaitGroup // calls of ended that began or may begin
	mu      sync.Mutex     // guards the fields below
	release func() bool    // takes back the call of ended for the message that is watched; nil if there is none
	stopped bool
}

// from watches the first message from index i on that is not settled.
func (w *watch) from(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i < len(w.messages) && settled(w.messages[i].msg) {
		i++
	}
	if w.stopped || i == len(w.messages) {
		w.release = nil
		return
	}
	w.running.Add(1)
	w.release = context.AfterFunc(w.messages[i].msg.Context(), func() { w.ended(i) }) // stop waits for it
}

// ended is called when the context of a message has ended.
func (w *watch) ended(i int) {
	defer w.running.Done()
	if settled(w.messages[i].msg) {
		w.from(i + 1)
		return
	}
	w.cancel()
}

// stop ends the watch, and waits for what runs.
func (w *watch) stop() {
	w.mu.Lock()
	w.stopped = true
	if w.release != nil && w.release() {
		w.running.Done()
	}
	w.mu.Unlock()
	w.running.Wait()
}
