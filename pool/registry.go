package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// registry holds what is open at an address. An entry is a placeholder while it
// is opened and while it is closed, so no lock is held across either.
type registry[T interface{ Close() error }] struct {
	mu      sync.RWMutex
	entries map[string]*entry[T]
	closed  bool

	closeOnce sync.Once
	closeErr  error
}

// entry is one address. The registry's mu guards ready, built and value.
type entry[T any] struct {
	ready   bool // value is open and nobody closes it
	built   bool // opening succeeded
	value   T
	settled chan struct{} // closed when opening has ended, well or not
	cancel  context.CancelFunc
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
	e := &entry[T]{settled: make(chan struct{}), cancel: cancel}
	if err := r.reserve(address, e); err != nil {
		return err
	}
	defer r.settle(address, e) // also when build panics
	value, err := build(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return ErrClosed
		}
		return err
	}
	r.mu.Lock()
	if ctx.Err() == nil {
		e.value, e.ready, e.built = value, true, true
		r.mu.Unlock()
		return nil
	}
	r.mu.Unlock()
	return errors.Join(ErrClosed, value.Close())
}

// settle ends the opening of an entry, which is forgotten if that failed.
func (r *registry[T]) settle(address string, e *entry[T]) {
	r.mu.Lock()
	if !e.built {
		r.remove(address, e)
	}
	r.mu.Unlock()
	close(e.settled)
}

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

// remove wants mu. The address may have another entry already.
func (r *registry[T]) remove(address string, e *entry[T]) {
	if r.entries[address] == e {
		delete(r.entries, address)
	}
}

func (r *registry[T]) close(address string) error {
	r.mu.Lock()
	e := r.entries[address]
	if e == nil {
		defer r.mu.Unlock()
		if r.closed {
			return ErrClosed
		}
		return ErrNotOpened
	}
	e.retire()
	r.mu.Unlock()
	return r.finish(address, e)
}

// retire makes an entry a placeholder and ends its opening. It wants mu.
func (e *entry[T]) retire() {
	e.ready = false
	e.cancel()
}

// finish closes what a retired entry holds; an opening that was ended closes
// it itself. Several may finish one entry: all wait for the same end.
func (r *registry[T]) finish(address string, e *entry[T]) error {
	<-e.settled
	r.mu.RLock()
	value, built := e.value, e.built
	r.mu.RUnlock()
	if !built {
		return nil
	}
	err := value.Close()
	r.mu.Lock()
	r.remove(address, e)
	r.mu.Unlock()
	return err
}

func (r *registry[T]) closeAll() error {
	r.closeOnce.Do(func() {
		r.mu.Lock()
		r.closed = true
		retired := maps.Clone(r.entries)
		for _, e := range retired {
			e.retire()
		}
		r.mu.Unlock()
		r.closeErr = r.finishAll(retired)
	})
	return r.closeErr
}

// finishAll does it side by side, so that the slowest alone decides how long it takes.
func (r *registry[T]) finishAll(retired map[string]*entry[T]) error {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		errs []error
	)
	for address, e := range retired {
		wg.Go(func() { // ends with Close of one value, which is bounded
			if err := r.finish(address, e); err != nil {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s: %w", netio.Quote(address), err))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
