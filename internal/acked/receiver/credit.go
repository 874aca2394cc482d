package receiver

import (
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// initialTarget suffices for a stream that sends now and then.
var initialTarget = flow.Amount{Messages: 256, Bytes: 64 << 10}

// topUpLocked grants more credit when half of it is used, without waiting in line. full tells that there is none.
func (s *stream) topUpLocked() (full bool) {
	if !s.givesCredit() {
		return false
	}
	left, idle := s.in.Outstanding(), s.topic.Window().Idle()
	target := flow.Amount{Messages: min(s.target.Messages, idle.Messages), Bytes: min(s.target.Bytes, idle.Bytes)}
	if s.claim != nil || left.Messages > target.Messages/2 && left.Bytes > target.Bytes/2 {
		return false
	}
	if idle.Messages < s.asked.Messages || idle.Bytes < s.asked.Bytes { // the sender would have to ask for the rest anyhow
		return false
	}
	more := flow.Amount{Messages: max(0, target.Messages-left.Messages), Bytes: max(0, target.Bytes-left.Bytes)}
	given := s.topic.Window().Take(more)
	s.in.Grant(given)
	return given == flow.Amount{}
}

// want answers a Want: it returns the unused credit to the window and asks for more, in line with the topic's other
// streams.
func (s *stream) want(c *conn, seen, messages, bytes, least uint64) {
	s.mu.Lock()
	if s.conn != c || s.revoked.Load() {
		s.mu.Unlock()
		return
	}
	if messages > 0 {
		s.raiseTargetLocked()
	}
	returned, ok := s.in.Return(seen)
	if !ok { // a grant has crossed the Want: the sender will see that, and ask again if it has to
		s.mu.Unlock()
		return
	}
	old := s.claim
	s.claim = nil
	if messages > 0 {
		s.claim = s.newClaimLocked(messages, bytes, least)
	} else {
		s.target = initialTarget
	}
	claim := s.claim
	s.mu.Unlock()
	s.returnCredit(old, returned)
	if claim != nil {
		s.topic.Window().Wait(claim)
		if s.waits(claim) {
			s.topic.CheckBehind()
		}
	}
}

// waits tells whether a claim was not granted yet.
func (s *stream) waits(claim *flow.Claim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claim == claim
}

// why says, in words for the sender, why it has got no credit that it wants; empty: it has got it.
func (s *stream) why() string {
	if s.waits(nil) {
		return ""
	}
	return truncate(s.topic.Shortage(), maxReason)
}

// returnCredit returns credit and a place in line to the window. It takes no lock of the stream.
func (s *stream) returnCredit(claim *flow.Claim, a flow.Amount) {
	s.topic.Window().Release(a)
	if claim != nil {
		s.topic.Window().Cancel(claim)
	}
}

// raiseTargetLocked has more credit kept topped up, as the sender had to ask.
func (s *stream) raiseTargetLocked() {
	size := s.conn.receiver.cfg.window()
	s.target.Messages = max(1, min(2*s.target.Messages, size.Messages/2))
	s.target.Bytes = max(1, min(2*s.target.Bytes, size.Bytes/2))
}

// newClaimLocked claims credit for what the sender has waiting, up to an eighth of the window, so that many streams
// find room. While consumers have messages to take, less is not granted: it would be spent in tiny frames.
func (s *stream) newClaimLocked(messages, bytes, least uint64) *flow.Claim {
	size, idle := s.conn.receiver.cfg.window(), s.topic.Window().Idle()
	share := flow.Amount{Messages: max(1, size.Messages/8), Bytes: max(1, size.Bytes/8)}
	wanted := flow.Amount{Messages: clamp(messages, share.Messages), Bytes: clamp(bytes, share.Bytes)}
	s.asked = flow.Amount{
		Messages: min(wanted.Messages, initialTarget.Messages), Bytes: min(wanted.Bytes, initialTarget.Bytes),
	}
	claim := &flow.Claim{
		Want: flow.Amount{
			Messages: max(wanted.Messages, min(s.target.Messages, idle.Messages)),
			Bytes:    max(wanted.Bytes, min(s.target.Bytes, idle.Bytes)),
		},
		Enough: flow.Amount{Messages: wanted.Messages, Bytes: max(wanted.Bytes, clamp(least, size.Bytes))},
		Least:  flow.Amount{Messages: 1, Bytes: clamp(least, size.Bytes)},
	}
	claim.Grant = func(a flow.Amount) { s.granted(claim, a) }
	return claim
}

func clamp(n uint64, limit int) int {
	if n > uint64(limit) {
		return limit
	}
	return int(n)
}

// granted passes on what the window gave for a claim, or returns it if the claim is not the stream's any more. The
// window calls it, with no lock held.
func (s *stream) granted(claim *flow.Claim, a flow.Amount) {
	if !s.grant(claim, a) {
		s.topic.Window().Release(a)
	}
}

func (s *stream) grant(claim *flow.Claim, a flow.Amount) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claim != claim {
		return false
	}
	s.claim = nil
	if !s.givesCredit() {
		return false
	}
	s.in.Grant(a)
	s.kickLocked()
	return true
}
