package receiver

import (
	"maps"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// A stream can move to another receiver. Its sender revokes it here: what no member has is returned, what members have
// is waited for, unless the sender does not want that, and the answer says what is settled. The stream is kept until
// its sender has released it, for a sender whose connection was lost meanwhile. A sender that left without an answer
// revokes the stream when it is connected again, or opens it with a higher tenure: then the old tenure is void, and the
// stream begins anew.

var _ dispatch.RevocableSource = (*stream)(nil)

// revocation is what is known of a stream that was revoked; stream.mu guards it.
type revocation struct {
	returned session.Watermark // given back by the topic, and handled by no group
	count    int               // given back
	answerTo *conn             // that waits for the final answer; nil: none
	handle   uint64            // of the stream there
	void     bool              // what becomes of it is of no interest to anybody
}

// revoke answers a Revoke, now or when the last member has settled what it has.
func (c *conn) revoke(f *wire.Revoke) error {
	if f.Handle == 0 {
		return &session.ProtocolError{Rule: "a handle must not be 0"}
	}
	s := c.handles[f.Handle]
	if s == nil {
		if s = c.receiver.findRevoked(f, c.principal); s == nil {
			c.send(&wire.Frame{Body: &wire.Frame_Returned{Returned: &wire.Returned{Handle: f.Handle}}})
			return nil
		}
		c.handles[f.Handle] = s
	}
	s.withdraw(false)
	s.answerRevoke(c, f.Handle, f.AtOnce)
	return nil
}

// findRevoked returns the stream that a Revoke names, if its tenure is older and it belongs to the peer.
func (r *Receiver) findRevoked(f *wire.Revoke, principal string) *stream {
	if len(f.Publisher) != 16 || len(f.Secret) != 16 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.publishers[[16]byte(f.Publisher)]
	if p == nil || !p.belongsTo(&wire.Open{Secret: f.Secret}, principal) {
		return nil
	}
	s := p.streams[streamKey{f.Stream, f.Topic}]
	if s == nil || s.isEnded() || !s.isBefore(f.Epoch, f.Tenure) {
		return nil
	}
	return s
}

// isBefore tells whether the stream has not had a tenure yet.
func (s *stream) isBefore(epoch, tenure uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch < epoch || s.epoch == epoch && s.tenure < tenure
}

// isVoidedBy tells whether an Open begins the stream anew: it has been elsewhere in between, or was revoked.
func (s *stream) isVoidedBy(f *wire.Open) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tenure > 0 && f.Tenure > s.tenure || s.revoked.Load()
}

// isAfter tells whether the stream has had a later tenure than that of an Open.
func (s *stream) isAfter(f *wire.Open) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f.Tenure > 0 && s.epoch == f.Epoch && s.tenure > f.Tenure
}

// isVoid tells whether what becomes of the stream is of no interest.
func (s *stream) isVoid() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revocation.void
}

// endVoided ends a stream in whose place another begins, on connection c.
func (s *stream) endVoided(c *conn) {
	s.withdraw(true)
	maps.DeleteFunc(c.handles, func(_ uint64, other *stream) bool { return other == s })
	s.mu.Lock()
	old := s.conn
	_, _ = s.detachLocked() // withdraw has returned its credit
	s.mu.Unlock()
	if old != nil && old != c { // it is dead, and does not know it yet
		old.closeNow()
	}
}

// withdraw takes back what no member has. Nothing more is received. With void the rest is of no interest any more.
func (s *stream) withdraw(void bool) {
	claim, unused, first := s.beginRevocation(void)
	s.returnCredit(claim, unused)
	if first {
		s.topic.Withdraw(s)
	}
}

func (s *stream) beginRevocation(void bool) (claim *flow.Claim, unused flow.Amount, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revocation.void = s.revocation.void || void
	if s.revoked.Load() {
		return nil, flow.Amount{}, false
	}
	s.revoked.Store(true)
	claim, unused = s.claim, s.in.Outstanding()
	s.claim = nil
	s.in.DropCredit()
	return claim, unused, true
}

// Revoked implements dispatch.RevocableSource.
func (s *stream) Revoked() bool { return s.revoked.Load() }

// Returned implements dispatch.RevocableSource.
func (s *stream) Returned(first, last uint64, handled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revocation.count += int(last - first + 1)
	if !handled {
		s.revocation.returned.Add(first, last)
	}
	s.answerLastLocked()
}

// Tenure counts the receivers that the stream has had; 0: its sender does not say.
func (s *stream) Tenure() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tenure
}

// inHandLocked is the number of messages that members have.
func (s *stream) inHandLocked() int { return s.in.Unsettled() - s.revocation.count }

// answerRevoke says what is settled and returned. If members have something, another answer follows, unless it was
// to be at once.
func (s *stream) answerRevoke(c *conn, handle uint64, atOnce bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.revocation
	r.void = r.void || atOnce
	r.answerTo, r.handle = c, handle
	s.appendReturnedLocked()
	if r.void || s.inHandLocked() == 0 {
		r.answerTo = nil
	}
	c.flusher.Kick()
}

// answerLastLocked sends the final answer if members have nothing any more.
func (s *stream) answerLastLocked() {
	c := s.revocation.answerTo
	if c == nil || s.inHandLocked() > 0 {
		return
	}
	s.appendReturnedLocked()
	s.revocation.answerTo = nil
	c.flusher.Kick()
}

// appendReturnedLocked appends the acks that are due, if the stream is open on the connection, and a Returned.
func (s *stream) appendReturnedLocked() {
	c := s.revocation.answerTo
	f := &wire.Returned{Handle: s.revocation.handle, Next: s.in.Next(), InHand: uint64(max(0, s.inHandLocked()))}
	f.Returned = limitPairs(s.revocation.returned.AppendPairs(nil, 1))
	if s.conn != c {
		f.Settled = limitPairs(s.in.SettledPairs())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.conn == c {
		s.appendAcksLocked(c)
	}
	c.appendControlLocked(&wire.Frame{Body: &wire.Frame_Returned{Returned: f}})
}

// limitPairs bounds what one frame carries. What is left out is sent again, and counts as what members have.
func limitPairs(pairs []uint64) []uint64 { return pairs[:min(len(pairs), 2*session.MaxRanges)] }
