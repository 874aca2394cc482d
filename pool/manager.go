package pool

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
)

// A Manager holds writers and listeners by their address. All methods are safe
// for concurrent use, and a slow address delays no other.
type Manager struct {
	cfg       ManagerConfig
	writers   registry[*Writer]
	listeners registry[*Listener]
	acked     *acked
}

// NewManager returns a Manager that holds nothing yet.
func NewManager(cfg ManagerConfig) (*Manager, error) {
	cfg.setDefaults()
	if err := cfg.Acked.Validate(); err != nil {
		return nil, err
	}
	return &Manager{cfg: cfg, acked: newAcked(cfg)}, nil
}

// Dial opens a Writer for cfg.Address, as DialTCP does; Write then finds it by
// that very string. It returns ErrAlreadyOpened if there is one, also one that
// is being opened or closed, and ErrClosed if the address or the Manager was
// closed meanwhile.
func (m *Manager) Dial(cfg WriterConfig) error {
	if cfg.Dial == nil {
		cfg.Dial = m.cfg.Dial
	}
	if cfg.Logger == nil {
		cfg.Logger = m.cfg.Logger
	}
	return m.writers.open(cfg.Address, func(ctx context.Context) (*Writer, error) {
		return dialWriter(ctx, cfg)
	})
}

// Write is Writer.Write for the Writer of address, or ErrNotOpened.
func (m *Manager) Write(address string, data []byte) (int, error) {
	w, err := m.writers.get(address)
	if err != nil {
		return 0, err
	}
	return w.Write(data)
}

// Flush is Writer.Flush for the Writer of address, or ErrNotOpened.
func (m *Manager) Flush(ctx context.Context, address string) error {
	w, err := m.writers.get(address)
	if err != nil {
		return err
	}
	return w.Flush(ctx)
}

// CloseWriter closes the Writer of address, as Writer.Close does, and forgets
// it, so that Dial can be called again. A Dial that is under way ends.
func (m *Manager) CloseWriter(address string) error { return m.writers.close(address) }

// StartListening opens a Listener on cfg.Address and accepts in the background.
// It returns ErrAlreadyOpened as Dial does.
func (m *Manager) StartListening(cfg ListenerConfig) error {
	if cfg.Listen == nil {
		cfg.Listen = m.cfg.Listen
	}
	if cfg.Logger == nil {
		cfg.Logger = m.cfg.Logger
	}
	return m.listeners.open(cfg.Address, func(context.Context) (*Listener, error) {
		l, err := ListenTCP(cfg)
		if err != nil {
			return nil, err
		}
		return l, l.StartListeningAsync()
	})
}

// CloseListener closes the Listener of address, as Listener.Close does, and
// forgets it, so that StartListening can be called again.
func (m *Manager) CloseListener(address string) error { return m.listeners.close(address) }

// ListenAddress is the address of the Listener's socket, with the port that the
// system chose where address ends in ":0", or nil if it is not open.
func (m *Manager) ListenAddress(address string) net.Addr {
	l, err := m.listeners.get(address)
	if err != nil {
		return nil
	}
	return l.Addr()
}

// Close closes first all listeners, as their callbacks may write, then all
// writers. It refuses whatever is opened later with ErrClosed. Later and
// concurrent calls wait for the same end and return nil, or the same errors.
func (m *Manager) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), defaultCloseTimeout)
	defer cancel()
	return errors.Join(m.acked.close(ctx), m.listeners.closeAll(), m.writers.closeAll())
}

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
				errs = append(errs, fmt.Errorf("%s: %w", quoteAddress(address), err))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
