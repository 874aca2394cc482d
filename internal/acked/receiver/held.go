package receiver

// Kept implements dispatch.Source.
func (s *stream) Kept() bool { return s.kept.Load() }

// updateKept is called when the sender was asked, or has answered, whether it keeps what is not settled.
func (s *stream) updateKept() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept.Store(s.conn != nil && !s.released && s.conn.keepsUnsettled())
}

// release notes that the peer of connection c, which has the stream, does not come back for it. It returns true if the
// stream is to be forgotten now. Otherwise that follows when the connection has ended and the last message is settled:
// a peer that goes on has not meant it.
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

// heldLocked is the number of messages that the receiver answers for: received, not settled, and not returned.
func (s *stream) heldLocked() int {
	if s.revocation.void {
		return 0
	}
	return s.inHandLocked()
}

// overLocked tells whether the sender has ended the stream and all of its messages are settled or rejected: it will not
// confirm a rejection any more.
func (s *stream) overLocked() bool {
	return s.released && s.conn == nil && s.opens == 0 && s.heldLocked() == 0
}

// isOver is overLocked for callers without the lock.
func (s *stream) isOver() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overLocked()
}

// isReleased tells whether the sender has ended the stream, and its connection. Nothing of it needs to survive the
// process then.
func (s *stream) isReleased() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revocation.void || s.released && s.conn == nil
}

// inUse tells whether a connection has the stream, an Open is about to attach it, messages of it are not settled, as
// members of a group that was dropped may have them yet, or something is on its way to the DedupeStore: one that began
// anew would get all of that once more.
func (s *stream) inUse() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended == nil && (s.conn != nil || s.opens > 0 || s.heldLocked() > 0 || len(s.uncommitted) > 0)
}

// forgettable tells whether nothing would be lost with the stream's state.
func (s *stream) forgettable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == nil && s.opens == 0 && (s.in.Idle() || s.revocation.void)
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
