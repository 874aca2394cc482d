package buffstreams

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
)

// The names of a subscription's callbacks, as errors have them.
const (
	nameUnmarshaler = "SubscriberConfig.Unmarshaler"
	nameKey         = "SubscriberConfig.Key"
	nameDeadLetter  = "SubscriberConfig.DeadLetter"
	nameOnFailure   = "SubscriberConfig.OnFailure"
	nameDedupe      = "AckedConfig.Dedupe"
)

// closeGrace is how long the end of a subscription waits for what has heard of it before it takes a callback for one
// that does not return.
const closeGrace = 200 * time.Millisecond

// userCode counts a subscription's calls of the user's code that are under way. Those that have not returned at the end
// are left behind, and named.
type userCode struct {
	mu      sync.Mutex // guards the fields below
	running map[string]int
	calling string // the callback that the pump is in; empty for none
	left    bool   // the pump's goroutine was left behind in it
}

func (u *userCode) begin(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.running == nil {
		u.running = map[string]int{}
	}
	u.running[name]++
}

func (u *userCode) end(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.running[name]--; u.running[name] == 0 {
		delete(u.running, name)
	}
}

// late names the callbacks that have not returned.
func (u *userCode) late() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(u.running)) {
		errs = append(errs, fmt.Errorf("buffstreams: %s has not returned within CloseTimeout: %d calls are left", name, u.running[name]))
	}
	if u.left {
		errs = append(errs, fmt.Errorf("buffstreams: %s has not returned within CloseTimeout", u.calling))
	}
	return errors.Join(errs...)
}

// enter notes that the pump's goroutine begins a callback. leave must follow.
func (u *userCode) enter(name string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.calling = name
}

// leave notes that the callback has returned. If the subscription has ended without it, leave ends the goroutine: the
// pump is not its any more.
func (u *userCode) leave() {
	u.mu.Lock()
	u.calling = ""
	left := u.left
	u.left = false
	u.mu.Unlock()
	if left {
		runtime.Goexit()
	}
}

// leaveBehind reports whether the pump's goroutine is in a callback. Then it will not touch the pump again.
func (u *userCode) leaveBehind() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.left = u.calling != ""
	return u.left
}

// call runs a callback on a goroutine of its own, and waits for it as long as messages have time to be handled.
// returned is false if it is left behind.
func (s *subscription) call(name string, f func() error) (returned bool, err error) {
	result := make(chan error, 1)
	s.code.begin(name)
	go func() { // Ends when the callback returns; finish waits for that, but not beyond CloseTimeout.
		err := hook.Call(name, f)
		s.code.end(name)
		result <- err
	}()
	select {
	case err = <-result:
		return true, err
	case <-s.base.Done():
	}
	select {
	case err = <-result:
		return true, err
	case <-time.After(closeGrace): // it may heed the end of what it publishes to
		return false, nil
	}
}

// awaitPump waits for the end of the pump's goroutine. One that is in a callback when the time is over is left behind,
// and its messages go back to the group from here.
func (p *pump) awaitPump() {
	select {
	case <-p.pumpDone:
		return
	case <-p.base.Done():
	}
	for wait := closeGrace; ; wait = time.Millisecond {
		select {
		case <-p.pumpDone:
			return
		case <-time.After(wait):
		}
		if p.code.leaveBehind() {
			break
		}
	}
	p.stop()
}

// inStore calls what may report settled messages, and so wait for the DedupeStore: also what gives messages back does,
// as a group that was dropped settles them.
func (s *subscription) inStore(f func()) {
	if !s.durable {
		f()
		return
	}
	if _, err := s.call(nameDedupe, func() error { f(); return nil }); err != nil {
		s.subscriber.logger.Error("Settling panicked", err, s.fields(nil))
	}
}

// sayLate logs the callbacks that were left behind.
func (s *subscription) sayLate(late error) {
	if late != nil {
		s.subscriber.logger.Error("A subscription ended without its callbacks", late, s.fields(watermill.LogFields{}))
	}
}
