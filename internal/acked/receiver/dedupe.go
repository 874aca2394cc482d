package receiver

import (
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/flush"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// saver writes settled positions to the DedupeStore: all that gather while one write is under way go into the next.
type committer struct {
	store   store.DedupeStore
	logger  watermill.LoggerAdapter
	flusher *flush.Flusher

	mu     sync.Mutex
	next   *batch
	failed error // for good: what the store holds is not known after a failed write
}

// saving is one write to come.
type batch struct {
	streams map[*stream]struct{}
	done    chan struct{} // closed when err is final
	err     error
}

func newCommitter(s store.DedupeStore, logger watermill.LoggerAdapter) *committer {
	v := &committer{store: s, logger: logger}
	v.flusher = flush.New(nil, v.flush)
	return v
}

// save returns when the stream's state, as it is at this call or later, is durable.
func (v *committer) save(s *stream) error {
	v.mu.Lock()
	if v.failed != nil {
		defer v.mu.Unlock()
		return v.failed
	}
	if v.next == nil {
		v.next = &batch{streams: map[*stream]struct{}{}, done: make(chan struct{})}
	}
	g := v.next
	g.streams[s] = struct{}{}
	v.mu.Unlock()
	v.flusher.Kick()
	<-g.done
	return g.err
}

// flush is the flusher's.
func (v *committer) flush() {
	v.mu.Lock()
	g := v.next
	v.next = nil
	failed := v.failed
	v.mu.Unlock()
	if g == nil {
		return
	}
	if g.err = failed; failed == nil {
		states := make(map[store.StreamID]store.StreamState, len(g.streams))
		for s := range g.streams {
			states[s.id] = s.state()
		}
		g.err = v.store.Save(states)
	}
	if g.err != nil && failed == nil {
		v.logger.Error("The dedupe store failed: nothing more is acked until the listener is opened anew", g.err,
			watermill.LogFields{"provider": netio.Provider})
		v.mu.Lock()
		v.failed = g.err
		v.mu.Unlock()
	}
	close(g.done)
}

// close ends the saver: whoever waits gets ErrClosed.
func (v *committer) close() {
	v.flusher.Close()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failed == nil {
		v.failed = ErrClosed
	}
	if v.next != nil {
		v.next.err = v.failed
		close(v.next.done)
		v.next = nil
	}
}

// state is what has to survive of a stream.
func (s *stream) state() store.StreamState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return store.StreamState{Epoch: s.epoch, Secret: s.secret, Settled: s.in.Settled(s.unsaved)}
}

// persist makes settled messages durable before anybody is told of them.
func (s *stream) persist(v *committer, r store.Range) error {
	s.mu.Lock()
	s.unsaved = append(s.unsaved, r)
	s.mu.Unlock()
	err := v.save(s)
	s.mu.Lock()
	s.unsaved = slices.DeleteFunc(s.unsaved, func(u store.Range) bool { return u == r })
	s.mu.Unlock()
	return err
}
