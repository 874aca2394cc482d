package sender

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// Mover serialises the moves of streams between Senders: a move locks two of them. Its zero value is ready.
type Mover struct {
	mu sync.Mutex // taken before any Sender's
}

// StreamConfig configures a Stream. Identity and Topic are required.
type StreamConfig struct {
	Identity  session.Identity // the receivers among which it moves share it
	Topic     string           // as it travels on the wire
	Ephemeral bool             // see session.Ephemeral

	// Elsewhere: Publish gives back what was not sent when the stream begins to leave its Sender (see WithdrawnError),
	// for its caller to send elsewhere: order among what is published counts for nothing then.
	Elsewhere bool
	// Alternative returns where the stream should be when its peer drains, is gone, silent, or cannot be reached; nil,
	// or the Sender that has it: it stays. It is called with no lock held, again and again, and must not block. Nil
	// stands for a function that returns nil.
	Alternative func(*Stream) *Sender
	// Divide is called, with no lock held, again and again while the stream leaves its Sender and holds what was not
	// sent and no caller waits for, which can go elsewhere at once: see Stream.Divide. It must not block. Nil: that
	// waits.
	Divide func(*Stream)
	// Moved is called after each move, with no lock held. Nil: nothing is.
	Moved func(Moved)
}

func (c *StreamConfig) alternative(st *Stream) *Sender {
	if c.Alternative == nil {
		return nil
	}
	return c.Alternative(st)
}

// Moved is a move of a stream.
type Moved struct {
	Stream   *Stream
	From, To *Sender
	Topic    string
	Tenure   uint64 // that began
	Messages int    // that moved
	Repeats  int    // of these, those that can come twice because of this move
}

// Stream is one flow of messages to a topic that is at one Sender at a time, and moves between Senders that have the
// same Mover, with its messages and the callers that wait for them. Its methods are safe for concurrent use.
type Stream struct {
	place
	cfg StreamConfig

	// Guarded by the mutex of the Sender that it is at.
	out    *session.Outbound
	number uint64  // of out in the identity
	target *Sender // where it is to move; nil: it is not
	ended  bool
	heirs  []*Stream // that Divide has given messages to, each once
	shares int       // how often it has
}

// NewStream returns a Stream that begins at this Sender.
func (s *Sender) NewStream(cfg StreamConfig) *Stream {
	st := &Stream{cfg: cfg}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.at.Store(s)
	st.beginLocked(s)
	return st
}

// beginLocked begins the stream under a new number. The caller must hold s.mu.
func (st *Stream) beginLocked(s *Sender) {
	st.number = s.cfg.NextStream()
	st.out = s.client.StartStream(st.cfg.Identity, st.number, st.cfg.Topic, st.cfg.Ephemeral)
	if s.streams == nil {
		s.streams = map[*Stream]struct{}{}
	}
	s.streams[st] = struct{}{}
	st.ended, st.target = false, nil
}

// inOrderLocked returns the Streams in the order of their numbers. The caller must hold mu.
func (s *Sender) inOrderLocked() []*Stream {
	all := make([]*Stream, 0, len(s.streams))
	for st := range s.streams {
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b *Stream) int { return cmp.Compare(a.number, b.number) })
	return all
}

// Sender returns where the stream is now.
func (st *Stream) Sender() *Sender { return st.at.Load() }

// Topic is the stream's topic on the wire.
func (st *Stream) Topic() string { return st.cfg.Topic }

// leavesLocked tells whether new messages should not join the stream. The caller must hold the mutex of its Sender.
func (st *Stream) leavesLocked() bool {
	return st.cfg.Elsewhere && st.target != nil && st.out.Leaving()
}

// Tenure counts the places that the stream has had.
func (st *Stream) Tenure() uint64 {
	defer st.lock().mu.Unlock()
	return st.out.Tenure()
}

// Unsettled is the number of messages that are not settled.
func (st *Stream) Unsettled() int {
	defer st.lock().mu.Unlock()
	return st.out.Pending()
}

// NothingSent tells whether the stream holds messages, and none was sent to the present receiver.
func (st *Stream) NothingSent() bool {
	defer st.lock().mu.Unlock()
	return st.target == nil && st.out.Pending() > 0 && st.out.NothingSent()
}

// Undelivered is the number of messages that no receiver is known to hold now.
func (st *Stream) Undelivered() int {
	s := st.lock()
	defer s.mu.Unlock()
	return s.client.Undelivered(st.out)
}

// Progress returns the lowest sequence that is not settled, and that of the next message.
func (st *Stream) Progress() (head, next uint64) {
	defer st.lock().mu.Unlock()
	return st.out.Head(), st.out.Last() + 1
}

// Room tells whether a small message would be sent at once: the window has room, and nothing waits for credit.
func (st *Stream) Room() bool {
	defer st.lock().mu.Unlock()
	return st.target == nil && st.out.HasRoom()
}

// Load returns Room and Unsettled at one moment.
func (st *Stream) Load() (room bool, unsettled int) {
	defer st.lock().mu.Unlock()
	return st.target == nil && st.out.HasRoom(), st.out.Pending()
}

// Flush waits until a receiver holds every message that was enqueued so far, or ctx is done.
func (st *Stream) Flush(ctx context.Context) error { return st.await(ctx, (*session.Client).Delivered) }

// Drain waits until every message that was enqueued so far is settled, or ctx is done.
func (st *Stream) Drain(ctx context.Context) error { return st.await(ctx, (*session.Client).Settled) }

func (st *Stream) await(ctx context.Context, enough func(*session.Client, *session.Outbound, uint64) bool) error {
	s := st.lock()
	o, shares := st.out, st.shares
	last := o.Last()
	s.mu.Unlock()
	for {
		s := st.Sender()
		elsewhere := func() bool { return st.Sender() != s }
		err := s.awaitCondition(ctx, func() bool { return elsewhere() || enough(s.client, o, last) })
		if elsewhere() && ctx.Err() == nil {
			continue
		}
		for _, heir := range st.heirsSince(shares) {
			err = errors.Join(err, heir.await(ctx, enough))
		}
		return err
	}
}

// heirsSince returns the Streams that have messages of this one, if Divide has given any away since it had so often.
func (st *Stream) heirsSince(shares int) []*Stream {
	defer st.lock().mu.Unlock()
	if st.shares == shares {
		return nil
	}
	return slices.Clone(st.heirs)
}

// AwaitReceived waits until a receiver has received, at some time, all messages that were enqueued by now, or ctx is
// done. It returns the number of those that the present receiver is not known to have had.
func (st *Stream) AwaitReceived(ctx context.Context) (left int) {
	s := st.lock()
	p, last, shares := publication{handle: st, stream: st.out}, st.out.Last(), st.shares
	s.mu.Unlock()
	left = p.awaitReceived(ctx, last)
	for _, heir := range st.heirsSince(shares) {
		_ = heir.AwaitReceived(ctx) // which counts its own
	}
	return left
}

// End says that nothing more will be published: the stream ends at both ends when everything is settled. A later
// Publish begins it anew.
func (st *Stream) End() {
	s := st.lock()
	st.ended = true
	s.sweepLocked()
	s.mu.Unlock()
	s.kick()
}

// sweepLocked forgets the streams that have ended. The caller must hold mu.
func (s *Sender) sweepLocked() {
	for st := range s.streams {
		if st.ended && st.out.Err() == nil && st.out.Pending() == 0 {
			s.client.EndStream(st.out)
		}
		if st.out.Err() != nil {
			st.target = nil
			delete(s.streams, st)
		}
	}
}

// MoveTo asks for a move to another Sender. It does not block: what was never sent moves at once, else the present
// receiver is asked first, unless it is gone or silent. Nothing moves from TLS to plaintext. A later call replaces an
// earlier one; with the Sender that has the stream, it stays.
func (st *Stream) MoveTo(to *Sender) {
	from := st.lock()
	if to == from {
		st.target = nil
		from.client.Stay(st.out)
		from.mu.Unlock()
		from.kick()
		return
	}
	if st.out.Err() != nil || from.cfg.Mover == nil || from.closed || from.cfg.TLS != nil && to.cfg.TLS == nil {
		from.mu.Unlock()
		return
	}
	st.target = to
	now, divides := from.client.MayMove(st.out), false
	switch {
	case now:
	case !from.client.Leave(st.out, time.Now()):
		st.target = nil
	case st.cfg.Elsewhere:
		from.client.Withdraw(st.out)
		divides = st.cfg.Divide != nil && from.client.Divisible(st.out)
	}
	from.mu.Unlock()
	switch {
	case now:
		st.transfer(from, to)
	case divides:
		st.cfg.Divide(st)
		fallthrough
	default:
		from.kick()
	}
}

// Divide gives messages that were never sent, and that no caller of Publish waits for, to another Stream of the same
// topic and Mover, while this one leaves its Sender: as many as that has room for. It returns their number. It does not
// block.
func (st *Stream) Divide(to *Stream) (given int) {
	for {
		n := st.divide(to)
		if given += n; n == 0 {
			return given
		}
	}
}

// divide is one step of Divide.
func (st *Stream) divide(to *Stream) int {
	mover := st.Sender().cfg.Mover
	mover.mu.Lock() // neither moves meanwhile
	defer mover.mu.Unlock()
	from, heir := st.Sender(), to.Sender()
	if from == heir || from.cfg.TLS != nil && heir.cfg.TLS == nil {
		return 0
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	heir.mu.Lock()
	defer heir.mu.Unlock()
	if !st.leavesLocked() || from.closed || heir.closed || to.ended || to.target != nil {
		return 0
	}
	if to.out.Err() != nil {
		to.beginLocked(heir)
	}
	n := from.client.Divide(st.out, heir.client, to.out)
	if n == 0 {
		return 0
	}
	if st.shares++; !slices.Contains(st.heirs, to) {
		st.heirs = append(st.heirs, to)
	}
	from.checkLocked()
	heir.kick()
	return n
}

// transfer moves the stream, if it still can.
func (st *Stream) transfer(from, to *Sender) {
	moved, ok := st.exchange(from, to)
	from.kick()
	if !ok {
		return
	}
	to.kick()
	if st.cfg.Moved != nil {
		st.cfg.Moved(moved)
	}
}

// exchange takes the stream out of one Sender and puts it into another.
func (st *Stream) exchange(from, to *Sender) (m Moved, ok bool) {
	from.cfg.Mover.mu.Lock()
	defer from.cfg.Mover.mu.Unlock()
	from.mu.Lock()
	defer from.mu.Unlock()
	if st.at.Load() != from || st.target != to || st.out.Err() != nil {
		return m, false
	}
	if !from.client.MayMove(st.out) {
		if !st.out.Leaving() { // the receiver was heard meanwhile, and is not asked for anything
			st.target = nil
		}
		return m, false
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	st.target = nil
	if to.closed || to.retired || from.closed {
		from.client.Stay(st.out)
		return m, false
	}
	m = Moved{Stream: st, From: from, To: to, Topic: st.cfg.Topic, Messages: st.out.Pending()}
	m.Repeats = from.client.Detach(st.out)
	delete(from.streams, st)
	to.client.Adopt(st.out)
	if to.streams == nil {
		to.streams = map[*Stream]struct{}{}
	}
	to.streams[st] = struct{}{}
	st.at.Store(to)
	m.Tenure = st.out.Tenure()
	from.checkLocked()
	return m, true
}
