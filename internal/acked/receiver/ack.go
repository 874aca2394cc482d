package receiver

import (
	"strings"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Settled implements dispatch.Source: every group is done with a run of messages. With a dedupe store it blocks until
// that is durable.
func (s *stream) Settled(first, last uint64) {
	if s.committer != nil && s.persist(store.Range{First: first, Last: last}) != nil {
		return // the committer has logged it; the publisher keeps the messages
	}
	if c := s.settle(first, last); c != nil {
		c.flusher.Kick()
	}
}

// settle returns the connection whose flusher is to be kicked.
func (s *stream) settle(first, last uint64) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in.Settle(first, last)
	s.markDirtyLocked()
	return s.conn
}

// Refused implements dispatch.Source: no handler will take a message.
func (s *stream) Refused(seq uint64, r dispatch.Refusal) {
	code := wire.Code_CODE_FAILED
	switch {
	case r.TooLarge:
		code = wire.Code_CODE_LIMIT
	case r.Undecodable:
		code = wire.Code_CODE_UNDECODABLE
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejectLocked(seq, code, r.Reason)
}

// Position implements dispatch.Source.
func (s *stream) Position(seq uint64) store.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return store.Position{StreamID: s.id, Epoch: s.epoch, Sequence: seq}
}

// maxReason bounds the reason in a Reject or Failure, in bytes.
const maxReason = 512

// maxUnconfirmed is how many rejections of a stream may be unconfirmed, whatever the window: a sender may confirm them when
// the message's owner has dealt with it.
const maxUnconfirmed = 16384

// rejectLocked tells the sender that a message will not be handled. The rejection is kept until the sender confirms it.
func (s *stream) rejectLocked(seq uint64, code wire.Code, reason string) {
	if s.conn != nil && s.in.Rejected() >= max(maxUnconfirmed, s.conn.receiver.cfg.WindowMessages) {
		s.conn.closeNow() // rejections of a peer that confirms none would pile up
	}
	f := s.in.Reject(seq, session.NewPeerError(code, truncate(reason, maxReason)))
	if s.conn != nil {
		s.kickLocked()
		s.conn.send(&wire.Frame{Body: &wire.Frame_Reject{Reject: f}})
	}
}

// truncate makes text fit for a frame.
func truncate(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// rejectSeen takes the sender's confirmation of a rejection.
func (s *stream) rejectSeen(seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in.RejectSeen(seq)
}

// markDirtyLocked puts the stream on its connection's list of those that have acks to write.
func (s *stream) markDirtyLocked() {
	if s.conn != nil && !s.dirty {
		s.dirty = true
		s.conn.markDirty(s)
	}
}

// kickLocked has the acks of the stream written.
func (s *stream) kickLocked() {
	if s.conn != nil {
		s.markDirtyLocked()
		s.conn.flusher.Kick()
	}
}
