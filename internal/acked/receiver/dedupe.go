package receiver

import (
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/flush"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// persist makes settled messages durable before their sender learns of them.
func (s *stream) persist(r store.Range) error {
	s.mu.Lock()
	s.uncommitted = append(s.uncommitted, r)
	s.mu.Unlock()
	err := s.committer.commit(s)
	s.mu.Lock()
	s.uncommitted = slices.DeleteFunc(s.uncommitted, func(u store.Range) bool { return u == r })
	s.mu.Unlock()
	return err
}

// state is what has to survive of a stream.
func (s *stream) state() store.StreamState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return store.StreamState{Epoch: s.epoch, Secret: s.secret, Settled: s.in.Settled(s.uncommitted)}
}

// committer writes settled positions to the DedupeStore in groups: those that gather while one write is under way go
// into the next. After a failed write it writes nothing more, as it is not known what the store holds.
type committer struct {
	store   store.DedupeStore
	logger  watermill.LoggerAdapter
	flusher *flush.Flusher // runs flush

	mu     sync.Mutex // guards next and failed
	next   *batch     // nil: empty
	failed error      // for good
}

// batch is one write to come.
type batch struct {
	streams map[*stream]struct{} // guarded by committer.mu until flush takes the batch
	done    chan struct{}        // closed when err is set
	err     error
}

func newCommitter(s store.DedupeStore, logger watermill.LoggerAdapter) *committer {
	c := &committer{store: s, logger: logger}
	c.flusher = flush.New(nil, c.flush)
	return c
}

// commit returns when the stream's state, as it is at this call or later, is durable.
func (c *committer) commit(s *stream) error {
	b, err := c.join(s)
	if err != nil {
		return err
	}
	c.flusher.Kick()
	<-b.done
	return b.err
}

// join adds a stream to the next batch.
func (c *committer) join(s *stream) (*batch, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return nil, c.failed
	}
	if c.next == nil {
		c.next = &batch{streams: map[*stream]struct{}{}, done: make(chan struct{})}
	}
	c.next.streams[s] = struct{}{}
	return c.next, nil
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
	states := make(map[store.StreamID]store.StreamState, len(b.streams))
	for s := range b.streams {
		states[s.id] = s.state()
	}
	err := c.store.Save(states)
	if err != nil {
		c.logger.Error("The dedupe store failed: nothing more is acked until the listener is opened anew", err,
			watermill.LogFields{"provider": netio.Provider})
		c.mu.Lock()
		c.failed = err
		c.mu.Unlock()
	}
	return err
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
		c.next = nil
	}
}
