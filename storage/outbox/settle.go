package outbox

import (
	"cmp"
	"context"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// Settle says that messages of stream k need not be kept: all up to through,
// and those in the ranges, in any order. What was not appended yet cannot be
// settled and is ignored. It returns before that is saved, which happens with
// the next append or a while later: after a crash settled messages may come
// back, and the receiver, which knows their sequences, drops them. Their space
// is given back as whole segments run empty.
//
// The memory that a stream takes grows with the gaps between settled messages,
// which a reader bounds with its window.
func (o *Outbox) Settle(k store.Key, through uint64, ranges ...store.Range) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.lookup(k)
	if err != nil {
		return err
	}
	emptied := false
	before := o.unsaved
	fresh := func(r store.Range) {
		o.unsaved += r.Last - r.First + 1
		emptied = s.release(r) || emptied
	}
	last := s.durable - 1
	s.settled.add(store.Range{First: 1, Last: min(through, last)}, fresh)
	for _, r := range ranges {
		s.settled.add(store.Range{First: max(r.First, 1), Last: min(r.Last, last)}, fresh)
	}
	if o.unsaved == before {
		return nil
	}
	if !s.dirty {
		s.dirty = true
		o.dirty = append(o.dirty, s)
	}
	if o.bytes == 0 && o.drained != nil {
		close(o.drained)
		o.drained = nil
	}
	o.tidy = o.tidy || emptied
	if emptied || o.unsaved >= saveEvery {
		o.poke()
	}
	return nil
}

// Forget removes stream k, which must be drained; it fails with ErrPending
// otherwise. It returns once that is durable. Neither its number nor any of its
// sequences is ever used again: a later Append to the same key begins a new
// stream with a new number.
func (o *Outbox) Forget(ctx context.Context, k store.Key) error {
	o.mu.Lock()
	s, err := o.lookup(k)
	if err == nil && s.settled.through+1 != s.next {
		err = ErrPending
	}
	if err != nil {
		o.mu.Unlock()
		return err
	}
	g, err := o.gathering()
	if err != nil {
		o.mu.Unlock()
		return err
	}
	g.entry = appendForgetRecord(g.entry, s.id)
	s.defined, s.dirty = false, false
	o.removeStream(s)
	o.mu.Unlock()
	o.poke()
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Streams returns all streams by number, drained ones included. After Close or
// a failure it returns what was known last.
func (o *Outbox) Streams() []store.Stream {
	o.mu.Lock()
	all := make([]store.Stream, 0, len(o.byID))
	for _, s := range o.byID {
		all = append(all, store.Stream{
			Key: s.key, ID: s.id, First: s.settled.through + 1, Next: s.next,
			Pending: s.pending(), Bytes: s.bytes,
		})
	}
	o.mu.Unlock()
	slices.SortFunc(all, func(a, b store.Stream) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// StreamID returns the number of stream k, which stays the same across
// restarts, or 0 if there is none.
func (o *Outbox) StreamID(k store.Key) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.streams[k]; s != nil {
		return s.id
	}
	return 0
}
