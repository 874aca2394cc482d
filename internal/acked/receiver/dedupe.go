package receiver

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/flush"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// persist makes settled messages durable before their sender learns of them. If that succeeds the caller must call
// persisted, which removes them from uncommitted, together with what makes them settled: a state in between would have
// less than the one that was saved.
func (s *stream) persist(r store.Range) error {
	s.mu.Lock()
	s.uncommitted = append(s.uncommitted, r)
	s.mu.Unlock()
	return s.committer.commit(s)
}

// persistedLocked ends what persist began.
func (s *stream) persistedLocked(r store.Range) {
	if i := slices.Index(s.uncommitted, r); i >= 0 {
		s.uncommitted = slices.Delete(s.uncommitted, i, i+1)
	}
}

// state is what has to survive of a stream.
func (s *stream) state() store.StreamState {
	s.mu.Lock()
	defer s.mu.Unlock()
	settled := s.in.Settled(s.uncommitted)
	return store.StreamState{
		Epoch: s.epoch, Secret: s.secret, Incarnation: s.last.ID, Settled: settled, Groups: s.groupsLocked(settled),
	}
}

// givesCredit tells whether the stream may have more credit: not when what is settled cannot be saved any more, as all
// that arrives would come again.
func (s *stream) givesCredit() bool { return s.committer == nil || !s.committer.broken.Load() }

// committer writes settled positions to the DedupeStore in groups: those that gather while one write is under way go
// into the next. After a failed write it writes nothing more, as it is not known what the store holds.
type committer struct {
	store   store.DedupeStore
	logger  watermill.LoggerAdapter
	flusher *flush.Flusher // runs flush
	broken  atomic.Bool    // a write has failed

	mu     sync.Mutex // guards next and failed
	next   *batch     // nil: empty
	failed error      // for good
}

// batch is one write to come.
type batch struct {
	// Guarded by committer.mu until flush takes the batch.
	streams map[*stream]struct{}       // to save
	ended   map[store.StreamID]*stream // to forget, before anything is saved

	done chan struct{} // closed when err is set
	err  error
}

func newCommitter(s store.DedupeStore, logger watermill.LoggerAdapter) *committer {
	c := &committer{store: s, logger: logger}
	c.flusher = flush.New(nil, c.flush)
	return c
}

// commit returns when the stream's state, as it is at this call or later, is durable.
func (c *committer) commit(s *stream) error {
	return c.wait(c.join(func(b *batch) { b.streams[s] = struct{}{} }))
}

// forget returns when the store has forgotten a stream that has ended.
func (c *committer) forget(s *stream) error {
	return c.wait(c.join(func(b *batch) {
		delete(b.streams, s) // it would come back
		b.ended[s.id] = s
	}))
}

// join adds something to the next batch.
func (c *committer) join(add func(*batch)) (*batch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return nil, c.failed
	}
	if c.next == nil {
		c.next = &batch{
			streams: map[*stream]struct{}{}, ended: map[store.StreamID]*stream{}, done: make(chan struct{}),
		}
	}
	add(c.next)
	return c.next, nil
}

// wait has a batch written, and waits for that.
func (c *committer) wait(b *batch, err error) error {
	if err != nil {
		return err
	}
	c.flusher.Kick()
	<-b.done
	return b.err
}

// flush writes the next batch. The flusher calls it.
func (c *committer) flush() {
	b, failed := c.takeBatch()
	if b == nil {
		return
	}
	if b.err = failed; failed == nil {
		b.err = c.write(b)
	}
	close(b.done)
}

func (c *committer) takeBatch() (b *batch, failed error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, c.next = c.next, nil
	return b, c.failed
}

func (c *committer) write(b *batch) error {
	for id := range b.ended {
		if err := c.store.Forget(id); err != nil { // it only stays
			c.logger.Info("The dedupe store cannot forget a stream", watermill.LogFields{"provider": netio.Provider, "err": err})
		}
	}
	if len(b.streams) == 0 {
		return nil
	}
	states := make(map[store.StreamID]store.StreamState, len(b.streams))
	for s := range b.streams {
		if !s.isVoid() { // else another has its id
			states[s.id] = s.state()
		}
	}
	err := c.store.Save(states)
	if err != nil {
		c.fail(err)
		c.logger.Error("The dedupe store failed: nothing more is acked, and no more messages are asked for, until the "+
			"listener is opened anew", err, watermill.LogFields{"provider": netio.Provider})
	}
	return err
}

// fail makes later calls fail.
func (c *committer) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = err
	c.broken.Store(true)
}

// close ends the committer: calls of commit that wait return ErrClosed.
func (c *committer) close() {
	c.flusher.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = ErrClosed
	}
	if c.next != nil {
		c.next.err = c.failed
		close(c.next.done)
	}
}
