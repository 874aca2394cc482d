package receiver

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// stream joins a publisher's stream to its topic: what arrives goes into the topic's log, and what is settled there
// goes back as acks on the connection that the stream has then. It outlives connections.
type stream struct {
	id        store.StreamID
	receiver  *Receiver
	topic     *dispatch.Topic
	publisher *publisher
	secret    [16]byte
	committer *committer                   // nil: nothing survives the process
	knew      map[string]session.Watermark // what groups had settled in an earlier life; it does not change

	// mu guards the fields below. The topic's window is asked to release and to wait without it, as it may call
	// granted.
	mu          sync.Mutex
	epoch       uint64
	sender      session.Incarnation // that has opened the stream; Epoch is that of the Open
	last        session.Incarnation // that has last changed what is known of the stream; zero: it is not known
	fresh       bool                // it was made by the Open under way
	uncommitted []store.Range       // settled, and on their way to the committer
	in          *session.Inbound
	groups      map[string]*session.Watermark // what each named group has settled, beyond in
	conn        *conn                         // nil while its publisher is away
	detached    time.Time                     // when the last connection ended
	opens       int                           // that have found the stream and have not attached it yet
	ended       *session.PeerError            // why, if it has with its topic: what still arrives is dropped
	released    bool                          // its sender has ended it, and does not come back if the connection ends
	dirty       bool                          // conn knows that there are acks to write
	claim       *flow.Claim
	target      flow.Amount // credit that is kept topped up; it doubles when the sender had to ask
	asked       flow.Amount // what the sender asked for last, up to initialTarget

	unheard      map[uint64]unheard // rejections that the sender has not confirmed; nil: none
	unheardTimer *time.Timer        // see awaitReturnLocked; nil: it does not run

	tenure     uint64 // of the Open; 0: its sender moves no streams
	revocation revocation

	kept    atomic.Bool // what Kept returns; changed under mu
	revoked atomic.Bool // see revocation; changed under mu
}

// publish puts the messages of a frame into the topic's log. That happens under mu, so that two connections of one
// stream cannot swap their order.
func (s *stream) publish(c *conn, f *session.PublishFrame) error {
	duplicates, dropped, full, err := s.accept(c, f)
	if err != nil {
		return err
	}
	s.noteReceived(f, duplicates)
	c.flusher.Kick()
	s.topic.Window().Release(dropped)
	if full {
		s.topic.CheckBehind()
	}
	return nil
}

// noneTaken is the number of duplicates in a frame of which nothing was looked at.
const noneTaken = -1

// accept returns the number of messages that were received before, and the room of those that did not go into the log. full
// tells that the window has no room for more credit.
func (s *stream) accept(c *conn, f *session.PublishFrame) (duplicates int, dropped flow.Amount, full bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return noneTaken, flow.Amount{}, false, nil
	}
	if s.conn != c {
		return 0, flow.Amount{}, false, &session.ProtocolError{Rule: "the stream moved to a newer connection"}
	}
	if s.revoked.Load() {
		return 0, flow.Amount{}, false, &session.ProtocolError{Rule: "publish in a stream that was revoked"}
	}
	fresh, first, dropped, err := s.in.Accept(f)
	if err != nil {
		return 0, flow.Amount{}, false, err
	}
	duplicates = dropped.Messages
	s.noteSenderLocked()
	if s.released { // it goes on
		s.released = false
		s.kept.Store(c.keepsUnsettled())
	}
	tooLarge := s.appendLocked(fresh, first, f)
	dropped.Messages += tooLarge.Messages
	dropped.Bytes += tooLarge.Bytes
	s.markDirtyLocked()
	return duplicates, dropped, s.topUpLocked(), nil
}

// appendLocked puts messages into the log, except those over the limit, which are rejected. It returns the room of
// these.
func (s *stream) appendLocked(msgs [][]byte, first uint64, f *session.PublishFrame) (rejected flow.Amount) {
	now, add := time.Now(), s.topic.Append
	if f.Again {
		add = s.topic.AppendAgain
	}
	limit := s.conn.receiver.cfg.MaxMessageSize
	from := 0
	for i, m := range msgs {
		if len(m) <= limit {
			continue
		}
		add(s, first+uint64(from), msgs[from:i], now, f.Memory)
		s.rejectLocked(first+uint64(i), wire.Code_CODE_LIMIT, "message larger than the limit")
		rejected.Messages++
		rejected.Bytes += session.EncodedSize(len(m))
		from = i + 1
	}
	add(s, first+uint64(from), msgs[from:], now, f.Memory)
	return rejected
}

// attach makes c the connection of the stream. An older connection that still has the stream is dead, and is closed.
func (s *stream) attach(c *conn, f *wire.Open) {
	old, returned, ok := s.replaceConn(c, f)
	if !ok {
		c.flusher.Kick()
		return
	}
	if old != nil && old != c {
		old.closeNow()
	}
	s.topic.Window().Release(returned)
	s.want(c, 0, f.WantMessages, f.WantBytes, f.LeastBytes)
	c.flusher.Kick()
}

// replaceConn answers the Open. It returns the connection that had the stream, with the credit that its sender has not
// used; ok is false if the stream has ended.
func (s *stream) replaceConn(c *conn, f *wire.Open) (old *conn, returned flow.Amount, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opens--
	if s.ended != nil {
		s.answerEndedLocked(c, f)
		return nil, flow.Amount{}, false
	}
	if old = s.conn; old == nil {
		s.topic.Window().Share(1)
	}
	returned = s.in.Outstanding()
	changes := s.fresh && f.Base > 1 || f.Base > s.in.Next()
	opened, rejects := s.in.Attach(f.Handle, f.Base)
	last := s.last
	if last.Epoch == 0 {
		last = s.publisher.lastSender()
	}
	addLast(opened, last)
	if c.moves {
		opened.Groups = s.topic.GroupsDigest()
	}
	s.tenure = f.Tenure
	s.conn, s.dirty, s.target, s.asked, s.epoch = c, false, initialTarget, flow.Amount{}, f.Epoch
	s.kept.Store(c.keepsUnsettled())
	s.sender = session.IncarnationOf(f.Epoch, f.Incarnation)
	s.released, s.fresh = false, false
	s.stopUnheardTimerLocked()
	if changes {
		s.noteSenderLocked()
	}
	c.appendOpened(opened, rejects)
	s.kickLocked()
	return old, returned, true
}

// detach removes the stream from a connection that ended.
func (s *stream) detach(c *conn) {
	s.mu.Lock()
	if s.conn != c {
		s.mu.Unlock()
		return
	}
	claim, unused := s.detachLocked()
	s.mu.Unlock()
	s.returnCredit(claim, unused)
}

// detachLocked forgets the connection. The caller passes what it returns to returnCredit, without the lock.
func (s *stream) detachLocked() (*flow.Claim, flow.Amount) {
	claim, unused := s.claim, s.in.Outstanding()
	if s.conn != nil {
		s.topic.Window().Share(-1)
	}
	s.in.Detach()
	s.conn, s.claim, s.detached = nil, nil, time.Now()
	s.kept.Store(false)
	s.awaitReturnLocked()
	return claim, unused
}

// fence removes the stream from a connection whose epoch is over, and closes that.
func (s *stream) fence(epoch uint64) {
	s.mu.Lock()
	c := s.conn
	if c == nil || s.epoch >= epoch {
		s.mu.Unlock()
		return
	}
	claim, unused := s.detachLocked()
	s.mu.Unlock()
	c.closeNow()
	s.returnCredit(claim, unused)
}

// terminate ends the stream for good and tells its sender.
func (s *stream) terminate(reason *session.PeerError) {
	s.mu.Lock()
	s.ended = reason
	s.in.End()
	c := s.conn
	if c != nil {
		s.appendEndLocked(c)
	}
	claim, unused := s.detachLocked()
	s.mu.Unlock()
	s.returnCredit(claim, unused)
	if c != nil {
		c.flusher.Kick()
	}
}

// beginOpen notes that an Open has found the stream. attach follows; until then the stream is not forgotten.
func (s *stream) beginOpen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opens++
}

// attachedTo tells whether c is the connection of the stream.
func (s *stream) attachedTo(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == c
}

// isEnded tells whether the stream has ended, which its sender may not know yet.
func (s *stream) isEnded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended != nil
}

// inUse tells whether a connection has the stream, an Open is about to attach it, or something of it is on its way to
// the DedupeStore: one that is read from there has less meanwhile.
func (s *stream) inUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended == nil && (s.conn != nil || s.opens > 0 || len(s.uncommitted) > 0)
}

// forgettable tells whether nothing would be lost with the stream's state.
func (s *stream) forgettable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == nil && s.opens == 0 && (s.in.Idle() || s.revocation.void)
}

// release notes that the peer of connection c, which has the stream, does not come back for it. It returns true if the
// stream is to be forgotten now. Otherwise that follows when the connection has ended and the last message is settled: a
// peer that goes on has not meant it.
func (s *stream) release(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c && !s.revoked.Load() {
		return false
	}
	s.released = true
	s.kept.Store(false)
	return s.in.Idle() || s.revoked.Load() && s.heldLocked() == 0
}

// overLocked tells whether the sender has ended the stream and all of its messages are settled or rejected: it will not
// confirm a rejection any more.
func (s *stream) overLocked() bool {
	return s.released && s.conn == nil && s.opens == 0 && s.heldLocked() == 0
}

// heldLocked is the number of messages that the receiver answers for: received, not settled, and not returned.
func (s *stream) heldLocked() int {
	if s.revocation.void {
		return 0
	}
	return s.inHandLocked()
}

// isReleased tells whether the sender has ended the stream, and its connection. Nothing of it needs to survive the process
// then.
func (s *stream) isReleased() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revocation.void || s.released && s.conn == nil
}

// isOver is overLocked for callers without the lock.
func (s *stream) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overLocked()
}

// abandoned tells whether nothing would be lost but rejections that an absent publisher has not confirmed: it can have
// the messages rejected once more. Nor with a stream that has ended, but what its sender was not told.
func (s *stream) abandoned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == nil && s.opens == 0 && (s.ended != nil || s.heldLocked() == 0)
}

// onlyCopies is the number of unsettled messages that the publisher is not known to keep, and subscriptions may handle.
func (s *stream) onlyCopies() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Kept() || !s.topic.HasMembers() {
		return 0
	}
	return s.heldLocked()
}

// Kept implements dispatch.Source.
func (s *stream) Kept() bool { return s.kept.Load() }

// updateKept is called when the sender was asked, or has answered, whether it keeps what is not settled.
func (s *stream) updateKept() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept.Store(s.conn != nil && !s.released && s.conn.keepsUnsettled())
}
