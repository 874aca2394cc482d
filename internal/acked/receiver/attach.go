package receiver

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

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
	_, _ = s.detachLocked() // the topic's window, which closes, has the credit
	s.mu.Unlock()
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
