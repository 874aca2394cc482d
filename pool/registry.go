package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// registry holds what is open at an address. An entry is a placeholder while its value is being opened or closed, so no
// lock is held across either.
type registry[T interface{ Close() error }] struct {
	mu      sync.RWMutex // guards entries, their fields, and closed
	entries map[string]*entry[T]
	closed  bool

	ending ending
}

// entry is one address. The registry's mu guards ready, built and value.
type entry[T any] struct {
	ready  bool // value is open and not being closed
	built  bool // opening succeeded
	value  T
	opened chan struct{}      // closed when opening has succeeded or failed
	cancel context.CancelFunc // ends opening
}

func (r *registry[T]) get(address string) (value T, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.entries[address]
	switch {
	case e != nil && e.ready:
		return e.value, nil
	case r.closed:
		return value, ErrClosed
	}
	return value, ErrNotOpened
}

// open calls build, whose context ends when the address is closed meanwhile.
func (r *registry[T]) open(address string, build func(context.Context) (T, error)) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e := &entry[T]{opened: make(chan struct{}), cancel: cancel}
	if err := r.reserve(address, e); err != nil {
		return err
	}
	defer r.endOpening(address, e) // also when build panics
	value, err := build(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return ErrClosed
	case err != nil:
		return err
	case !r.publish(ctx, e, value):
		return errors.Join(ErrClosed, value.Close())
	}
	return nil
}

// reserve adds a placeholder.
func (r *registry[T]) reserve(address string, e *entry[T]) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	if r.entries[address] != nil {
		return ErrAlreadyOpened
	}
	if r.entries == nil {
		r.entries = make(map[string]*entry[T])
	}
	r.entries[address] = e
	return nil
}

// publish lets get find the value. It returns false if the address was closed meanwhile.
func (r *registry[T]) publish(ctx context.Context, e *entry[T], value T) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	e.value, e.ready, e.built = value, true, true
	return true
}

// endOpening removes the entry if its opening failed.
func (r *registry[T]) endOpening(address string, e *entry[T]) {
	defer close(e.opened)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !e.built {
		r.removeLocked(address, e)
	}
}

// removeLocked does nothing if the address has another entry by now.
func (r *registry[T]) removeLocked(address string, e *entry[T]) {
	if r.entries[address] == e {
		delete(r.entries, address)
	}
}

func (r *registry[T]) close(address string) error {
	e, err := r.retire(address)
	if err != nil {
		return err
	}
	return r.finish(address, e)
}

func (r *registry[T]) closeAll() error {
	return r.ending.run(func() error { return r.finishAll(r.retireAll()) })
}

// retire makes the entry of an address a placeholder again and ends its opening.
func (r *registry[T]) retire(address string) (*entry[T], error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[address]
	switch {
	case e != nil:
		e.retireLocked()
		return e, nil
	case r.closed:
		return nil, ErrClosed
	}
	return nil, ErrNotOpened
}

func (r *registry[T]) retireAll() map[string]*entry[T] {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, e := range r.entries {
		e.retireLocked()
	}
	return maps.Clone(r.entries)
}

func (e *entry[T]) retireLocked() {
	e.ready = false
	e.cancel()
}

// finish closes the value of a retired entry; an opening that was ended closes it itself. Concurrent calls for one
// entry all wait for the same end.
func (r *registry[T]) finish(address string, e *entry[T]) error {
	<-e.opened // after it, built and value do not change
	if !e.built {
		return nil
	}
	err := e.value.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeLocked(address, e)
	return err
}

// finishAll closes all at the same time, so that the slowest alone decides how long it takes.
func (r *registry[T]) finishAll(retired map[string]*entry[T]) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex // guards errs
		errs []error
	)
	for address, e := range retired {
		wg.Go(func() { // ends with Close of one value, which is bounded; wg.Wait below waits for it
			if err := r.finish(address, e); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("%s: %w", netio.Quote(address), err))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
