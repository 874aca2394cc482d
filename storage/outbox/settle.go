package outbox

import (
	"context"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// Settle records that messages of stream k need not be kept: those up to and including sequence through (0 for none),
// and those in ranges, which may be in any order and may overlap. It ignores sequences of messages that are not durable
// yet. It returns store.ErrUnknownStream if there is no stream k.
//
// What is settled up to the lowest sequence that is not is saved with the next append to any stream. The rest is saved
// whenever a segment is full, after 16,384 settled messages without an append, and by Close. After a crash Read can
// return settled messages that were not saved; a receiver that has them drops them by their sequences. Disk space is
// given back when all messages of a segment are settled.
//
// The memory that a stream takes grows with the gaps between settled messages, which a reader bounds with its window.
func (o *Outbox) Settle(k store.Key, through uint64, ranges ...store.Range) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.streamLocked(k)
	if err != nil {
		return err
	}
	emptied, settled := false, uint64(0)
	added := func(r store.Range) {
		settled += r.Last - r.First + 1
		emptied = s.deduct(r) || emptied
	}
	last := s.durable - 1
	s.settled.add(store.Range{First: 1, Last: min(through, last)}, added)
	for _, r := range ranges {
		s.settled.add(store.Range{First: r.First, Last: min(r.Last, last)}, added)
	}
	if settled == 0 {
		return nil
	}
	s.forgetAges()
	o.unsaved.add(s, settled)
	if o.index.bytes == 0 {
		o.notifyDrainedLocked()
	}
	o.reclaimable = o.reclaimable || emptied
	if emptied || o.unsaved.messages >= saveEvery {
		o.poke()
	}
	return nil
}

// Forget removes stream k, and returns once that is durable. It returns [store.ErrPending] while the stream has pending
// messages, and store.ErrUnknownStream if there is no stream k. A later Append to the same key creates a new stream
// with a new number; no number is used twice. If ctx ends first, Forget returns its error, and the stream may or may
// not come back after a crash.
func (o *Outbox) Forget(ctx context.Context, k store.Key) error {
	g, err := o.enqueueForget(k)
	if err != nil {
		return err
	}
	o.poke()
	select {
	case <-g.done:
		return g.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *Outbox) enqueueForget(k store.Key) (*group, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.streamLocked(k)
	if err != nil {
		return nil, err
	}
	if s.settled.through+1 != s.next {
		return nil, store.ErrPending
	}
	g, err := o.groupLocked()
	if err != nil {
		return nil, err
	}
	g.entry = appendForgetRecord(g.entry, s.id)
	s.unsaved = false
	o.index.removeStream(s)
	return g, nil
}
