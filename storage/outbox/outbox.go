package outbox

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// Outbox is a store.Outbox in an open directory. All methods may be called from any
// number of goroutines, except that each stream has one reader at a time.
type Outbox struct {
	cfg  Config
	who  identity
	seed uint32 // of every checksum in the log
	meta metaStore
	lock io.Closer

	deliverer chan struct{} // capacity 1: holds a value while somebody delivers

	wake    chan struct{} // capacity 1: the committer has something to do
	closing chan struct{}
	stop    sync.Once
	stopErr error
	wg      sync.WaitGroup

	// The committer's own after Open.
	log        *segmentLog
	relocation *relocation

	// mu guards the index and all below. Nothing waits for a disk under it.
	mu          sync.Mutex
	streams     map[store.Key]*stream
	byID        map[uint64]*stream
	nextStream  uint64
	dests       map[string]*destination
	bytes       int64 // cost of all that is pending
	segments    map[uint64]*segmentFile
	group       *group // being gathered, nil if empty
	groupHint   int    // size of the last one, somewhat more
	sectionHint int    // sections of the last one
	cached      []*group
	cachedSize  int
	dirty       []*stream     // settled further than the log says
	unsaved     uint64        // messages settled since that was last saved
	tidy        bool          // a segment may be ready to be given back
	newStreams  chan struct{} // closed and replaced when a stream appears
	drained     chan struct{} // closed when nothing is pending; nil if nobody waits
	closed      bool
	failure     error // wraps ErrFailed
}

var _ store.Outbox = (*Outbox)(nil)

// Open opens the outbox in cfg.Dir or makes one there, and adds one to its
// epoch. It fails with ErrLocked while another process has it open, and with a
// *CorruptError if the end of the log was damaged by more than a crash.
func Open(cfg Config) (*Outbox, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	disk, err := cfg.open(cfg.Dir)
	if err != nil {
		return nil, err
	}
	o := &Outbox{
		cfg: cfg, meta: metaStore{disk.meta}, lock: disk.lock,
		deliverer: make(chan struct{}, 1),
		wake:      make(chan struct{}, 1), closing: make(chan struct{}), newStreams: make(chan struct{}),
		streams: map[store.Key]*stream{}, byID: map[uint64]*stream{}, nextStream: 1,
		dests: map[string]*destination{}, segments: map[uint64]*segmentFile{},
	}
	if err := o.recover(disk.fs); err != nil {
		var damage *store.CorruptError
		if !errors.As(err, &damage) {
			err = fmt.Errorf("outbox: open %s: %w", cfg.Dir, err)
		}
		return nil, errors.Join(err, o.release())
	}
	o.tidy = true
	o.poke()
	o.wg.Add(1)
	go o.run() // ends after Close closed o.closing, or with the first failed write
	return o, nil
}

// ID is the random name of this outbox, made once. Receivers know its streams
// by it.
func (o *Outbox) ID() [16]byte { return o.who.id }

// Secret is random, made once, and binds the id to whoever holds this
// directory. It belongs in no log.
func (o *Outbox) Secret() [16]byte { return o.who.secret }

// Epoch is how often the outbox was opened, this time included. It is durable
// before Open returns, so no two processes ever have the same one.
func (o *Outbox) Epoch() uint64 { return o.who.epoch }

// Close commits the appends under way, saves what was settled, and ends every
// wait with ErrClosed. It does not wait for messages to be delivered: Drained
// does. Further calls wait for the first and return its error.
func (o *Outbox) Close() error {
	o.stop.Do(func() {
		o.mu.Lock()
		o.closed = true
		o.releaseWaiters()
		o.mu.Unlock()
		close(o.closing)
		o.wg.Wait()
		o.mu.Lock()
		failure := o.failure
		o.mu.Unlock()
		o.stopErr = errors.Join(failure, o.release())
	})
	return o.stopErr
}

// release closes all that Open opened.
func (o *Outbox) release() error {
	var errs []error
	for _, f := range o.segments {
		errs = append(errs, f.handle.reset(nil))
	}
	errs = append(errs, o.meta.Close())
	if o.lock != nil {
		errs = append(errs, o.lock.Close())
	}
	return errors.Join(errs...)
}

// usable says why no call can be served any longer. mu is held.
func (o *Outbox) usable() error {
	if o.failure != nil {
		return o.failure
	}
	if o.closed {
		return store.ErrClosed
	}
	return nil
}

// lookup returns the stream of k. mu is held.
func (o *Outbox) lookup(k store.Key) (*stream, error) {
	if err := o.usable(); err != nil {
		return nil, err
	}
	if s := o.streams[k]; s != nil {
		return s, nil
	}
	return nil, store.ErrUnknownStream
}

// addStream puts a stream into the index. mu is held.
func (o *Outbox) addStream(id uint64, k store.Key) *stream {
	d := o.dests[k.Destination]
	if d == nil {
		d = &destination{name: k.Destination, total: &o.bytes}
		o.dests[k.Destination] = d
	}
	d.streams++
	s := &stream{id: id, key: k, dest: d, next: 1, durable: 1}
	o.streams[k], o.byID[id] = s, s
	o.nextStream = max(o.nextStream, id+1)
	return s
}

// removeStream takes a drained stream out of the index. mu is held.
func (o *Outbox) removeStream(s *stream) {
	delete(o.byID, s.id)
	if o.streams[s.key] == s {
		delete(o.streams, s.key)
	}
	if s.dest.streams--; s.dest.streams == 0 {
		delete(o.dests, s.dest.name)
	}
}

// poke wakes the committer, or makes sure that it looks again.
func (o *Outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func seedOf(id [16]byte) uint32 { return crc32.Checksum(id[:], castagnoli) }
