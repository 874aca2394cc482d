package apisim

import (
	"fmt"
	"regexp"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// call is a call of the library that has not returned.
type call struct {
	name  string
	began time.Time
	bound time.Duration // 0: none
	proc  *process
}

// slack is what a call may take beyond its time-out.
const slack = time.Second

// timed calls f and holds it to its time. A panic is a violation, and an error.
func (w *world) timed(proc *process, name string, bound time.Duration, f func() error) (err error) {
	c := &call{name: name, began: time.Now(), bound: bound, proc: proc}
	w.mu.Lock()
	w.calls[c] = true
	w.mu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			w.violated(13, name+" panics", "%v at %s", p, libraryFrame(string(debug.Stack())))
			err = errPanicked
		}
		w.mu.Lock()
		delete(w.calls, c)
		w.mu.Unlock()
		took := time.Since(c.began)
		if bound > 0 && took > bound+slack && !proc.dead.Load() {
			w.violated(13, name+" takes longer than its time-out"+w.because(c.began), "%v instead of %v", took, bound)
		}
	}()
	return f()
}

// because says which callbacks have blocked since a moment.
func (w *world) because(since time.Time) (s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, kind := range gateKinds {
		if until, ever := w.gated[kind]; ever && (until.IsZero() || !until.Before(since)) {
			s += " while " + kind + " blocks"
		}
	}
	return s
}

// overdue are the calls that should have returned.
func (w *world) overdue() (late []*call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.calls {
		if !c.proc.dead.Load() && (c.bound == 0 || time.Since(c.began) > c.bound+slack) {
			late = append(late, c)
		}
	}
	return late
}

// do runs f in a goroutine and waits a moment for it.
func (w *world) do(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(50 * time.Millisecond):
	}
}

// closing is what several calls of a Close came to.
type closing struct {
	errs []error
	at   []time.Time
}

// closeAll makes n calls of a Close side by side, and one more when they are through. Each has to wait for the same end
// and say the same. It returns when all have returned.
func (w *world) closeAll(proc *process, name string, n int, bound time.Duration, f func() error) error {
	r := closing{errs: make([]error, n), at: make([]time.Time, n)}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			r.errs[i] = w.timed(proc, name, bound, f)
			r.at[i] = time.Now()
		})
	}
	wg.Wait()
	again := w.timed(proc, name, bound, f)
	if proc.dead.Load() {
		return r.errs[0]
	}
	for i := range n {
		if d := r.at[0].Sub(r.at[i]).Abs(); d > 20*time.Millisecond {
			w.violated(10, "of two calls of "+name+" one returns before the end", "%v apart: %v, %v", d, r.errs[0], r.errs[i])
		} else if text(r.errs[i]) != text(r.errs[0]) {
			w.violated(10, "two calls of "+name+" side by side say different things", "%v, %v", r.errs[0], r.errs[i])
		}
	}
	if n == 1 && text(again) != text(r.errs[0]) {
		w.violated(10, "a second "+name+" says something else", "%v after %v", again, r.errs[0])
	}
	for _, err := range r.errs {
		if err != nil {
			w.noteUntold(err)
			return err
		}
	}
	return nil
}

var untold = regexp.MustCompile(`OnFailure has not returned in time: (\d+) calls are left`)

// noteUntold notes how many messages a Close has not given to an OnFailure that blocks: its error says so.
func (w *world) noteUntold(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, found := range untold.FindAllStringSubmatch(err.Error(), -1) {
		n, _ := strconv.Atoi(found[1])
		w.untold += n
	}
}

func text(err error) string {
	if err == nil {
		return "nil"
	}
	return fmt.Sprint(err)
}
