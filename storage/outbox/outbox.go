package outbox

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// Outbox is a store.Outbox in a directory. All methods may be called concurrently, except that each stream has one
// reader at a time. Append and Forget wait for their fsync, and Read may read from the disk; Drain and Acquire wait for
// other callers; the others do not block. Open starts one goroutine, which writes to the disk and which Close ends.
type Outbox struct {
	cfg      Config
	identity identity // Open sets it, and then the committer
	seed     uint32   // of every checksum in the log
	meta     metaStore
	lock     io.Closer // of the directory, or nil
	opened   time.Time
	watchers watchers

	sharing sync.Once
	shared  any // set by sharing

	delivery chan struct{} // capacity 1: holds a value from Acquire to release

	wake      chan struct{} // capacity 1: the committer has something to do
	writing   atomic.Int64  // the time.Duration after opened when the committer has begun to use the disk; 0: it does not use it
	closing   chan struct{} // closed by Close
	closeOnce sync.Once
	closeErr  error // set by closeOnce
	wg        sync.WaitGroup

	// Owned by Open, and then by the committer.
	log        *segmentLog
	relocation *relocation // nil if none is under way

	// mu guards the fields below. No disk access happens while it is held.
	mu           sync.Mutex
	index        *index
	cache        cache
	unsaved      unsaved
	lineage      lineage
	places       places
	drawn        bool          // the id of the lineage was drawn since Open
	renunciation *renunciation // that is under way; nil: none is
	group        *group        // gathers appends; nil if there are none
	groupHint    int           // bytes of the last group, and a quarter more
	sectionHint  int           // sections of the last group
	reclaimable  bool          // a segment may have become free
	newStreams   chan struct{} // closed and replaced when a stream is created
	drained      chan struct{} // closed when nothing is pending; nil if no caller waits for that
	closed       bool
	failure      error // wraps store.ErrFailed
}

var _ store.Outbox = (*Outbox)(nil)

var _ store.Sharer = (*Outbox)(nil)

var _ store.Readier = (*Outbox)(nil)

// Shared returns what the publishers on the outbox share: what the first of them has made.
func (o *Outbox) Shared(fresh func() any) any {
	o.sharing.Do(func() { o.shared = fresh() })
	return o.shared
}

// Open opens the outbox in cfg.Dir, or creates one there, and makes its next epoch durable. It fails with [ErrLocked]
// while another process has the outbox open, and with a *store.CorruptError if the outbox has damage that a crash
// cannot explain. The caller must close the outbox.
func Open(cfg Config) (*Outbox, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	began := time.Now()
	disk, err := cfg.open(cfg.Dir)
	if err != nil {
		return nil, err
	}
	o := &Outbox{
		cfg: cfg, meta: metaStore{disk.meta}, lock: disk.lock,
		delivery: make(chan struct{}, 1),
		wake:     make(chan struct{}, 1), closing: make(chan struct{}),
		index: newIndex(), cache: cache{limit: cfg.CacheBytes},
		reclaimable: true, newStreams: make(chan struct{}), opened: time.Now(), watchers: newWatchers(cfg.Hooks),
	}
	if err := o.recoverLog(disk.fs); err != nil {
		var corrupt *store.CorruptError
		if !errors.As(err, &corrupt) {
			err = fmt.Errorf("outbox: open %s: %w", cfg.Dir, err)
		}
		o.tellRecovered(began, err)
		return nil, errors.Join(err, o.closeFiles())
	}
	o.tellRecovered(began, nil)
	o.poke()
	o.wg.Go(o.commitLoop) // ends when Close closes o.closing, or at the first failed write; Close waits for it
	return o, nil
}

// ID returns the random id of the outbox, by which receivers know its streams. It changes only with [Outbox.Renounce].
func (o *Outbox) ID() [16]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lineage.id
}

// Secret returns random bytes that prove the ownership of the id. They change with the id, and must not be disclosed or
// logged.
func (o *Outbox) Secret() [16]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lineage.secret
}

// Epoch returns a number that grows each time the outbox is opened. It is durable before Open returns, so no two
// openings have the same epoch, unless one of them is that of a copy: see [Outbox.Lineage].
func (o *Outbox) Epoch() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lineage.incarnations[len(o.lineage.incarnations)-1].Epoch
}

// Name returns the directory of the outbox, for logs.
func (o *Outbox) Name() string { return o.cfg.Dir }

// Err returns store.ErrClosed after Close, an error that wraps store.ErrFailed after a failed write, and nil before.
func (o *Outbox) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.errLocked()
}

// Close commits the appends under way, saves which messages are settled, and closes all files. It ends all waits: Drain
// returns store.ErrClosed, and the channels of Readable and NewStreams are closed. Close does not wait for messages to
// be delivered: see [Outbox.Drain]. Further calls wait for the first, and return its error.
func (o *Outbox) Close() error {
	o.closeOnce.Do(func() {
		o.mu.Lock()
		o.closed = true
		o.endWaitsLocked()
		o.mu.Unlock()
		close(o.closing)
		o.wg.Wait()
		o.mu.Lock()
		failure := o.failure
		o.mu.Unlock()
		o.closeErr = errors.Join(failure, o.closeFiles())
	})
	return o.closeErr
}

// closeFiles closes all that Open opened. The committer must have ended.
func (o *Outbox) closeFiles() error {
	var errs []error
	for _, f := range o.index.segments {
		errs = append(errs, f.handle.reset(nil))
	}
	errs = append(errs, o.meta.Close())
	if o.lock != nil {
		errs = append(errs, o.lock.Close())
	}
	return errors.Join(errs...)
}

// fail stops the outbox for good, and returns the error that its methods return from now on.
func (o *Outbox) fail(cause error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failure != nil {
		return o.failure
	}
	o.failure = fmt.Errorf("%w: %w", store.ErrFailed, cause)
	if g := o.group; g != nil {
		o.group = nil
		g.err = o.failure
		close(g.done)
	}
	if r := o.renunciation; r != nil {
		o.renunciation = nil
		r.err = o.failure
		close(r.done)
	}
	o.endPlacingLocked(o.failure)
	o.endWaitsLocked()
	return o.failure
}

func (o *Outbox) errLocked() error {
	if o.failure != nil {
		return o.failure
	}
	if o.closed {
		return store.ErrClosed
	}
	return nil
}

func (o *Outbox) streamLocked(k store.Key) (*stream, error) {
	if err := o.errLocked(); err != nil {
		return nil, err
	}
	if s := o.index.streams[k]; s != nil {
		return s, nil
	}
	return nil, store.ErrUnknownStream
}

// poke makes the committer look for something to do, again if it is doing that now.
func (o *Outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func seedOf(id [16]byte) uint32 { return crc32.Checksum(id[:], castagnoli) }
