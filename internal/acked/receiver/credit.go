package receiver

import (
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// initialTarget suffices for a stream that sends now and then.
var initialTarget = flow.Amount{Messages: 256, Bytes: 64 << 10}

// topUp gives more credit when half of it is used, without waiting in line. mu is held.
func (s *stream) topUp() {
	left, idle := s.in.Outstanding(), s.topic.Window().Idle()
	target := flow.Amount{Messages: min(s.target.Messages, idle.Messages), Bytes: min(s.target.Bytes, idle.Bytes)}
	if s.claim != nil || left.Messages > target.Messages/2 && left.Bytes > target.Bytes/2 {
		return
	}
	if idle.Messages < s.asked.Messages || idle.Bytes < s.asked.Bytes { // it would have to ask for the rest all the same
		return
	}
	more := flow.Amount{Messages: max(0, target.Messages-left.Messages), Bytes: max(0, target.Bytes-left.Bytes)}
	s.in.Grant(s.topic.Window().Take(more))
}

// want returns the unused credit and asks for more, in line with the topic's other streams.
func (s *stream) want(c *conn, seen, messages, bytes, least uint64) {
	s.mu.Lock()
	if s.conn != c {
		s.mu.Unlock()
		return
	}
	if messages > 0 {
		s.grow()
	}
	returned, ok := s.in.Return(seen)
	if !ok { // a grant crossed it: the sender will see that and ask again if it has to
		s.mu.Unlock()
		return
	}
	old := s.claim
	s.claim = nil
	if messages > 0 {
		s.claim = s.newClaim(messages, bytes, least)
	} else {
		s.target = initialTarget
	}
	claim := s.claim
	s.mu.Unlock()
	s.giveBack(old, returned)
	if claim != nil {
		s.topic.Window().Wait(claim)
	}
}

// grow has more credit kept topped up, as the sender had to ask. mu is held.
func (s *stream) grow() {
	size := s.conn.receiver.cfg.window()
	s.target.Messages = max(1, min(2*s.target.Messages, size.Messages/2))
	s.target.Bytes = max(1, min(2*s.target.Bytes, size.Bytes/2))
}

// newClaim is for what the sender has waiting, up to an eighth of the window, so that many streams find room. A grant of
// much less than can be used would be spent in tiny frames. mu is held.
func (s *stream) newClaim(messages, bytes, least uint64) *flow.Claim {
	size, idle := s.conn.receiver.cfg.window(), s.topic.Window().Idle()
	share := flow.Amount{Messages: max(1, size.Messages/8), Bytes: max(1, size.Bytes/8)}
	wanted := flow.Amount{Messages: clamp(messages, share.Messages), Bytes: clamp(bytes, share.Bytes)}
	s.asked = flow.Amount{Messages: min(wanted.Messages, initialTarget.Messages), Bytes: min(wanted.Bytes, initialTarget.Bytes)}
	claim := &flow.Claim{
		Want: flow.Amount{
			Messages: max(wanted.Messages, min(s.target.Messages, idle.Messages)),
			Bytes:    max(wanted.Bytes, min(s.target.Bytes, idle.Bytes)),
		},
		Least: flow.Amount{Messages: wanted.Messages, Bytes: max(wanted.Bytes, clamp(least, size.Bytes))},
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

// granted takes what the window gave for a claim, unless the claim is not the stream's any more.
func (s *stream) granted(claim *flow.Claim, a flow.Amount) {
	s.mu.Lock()
	if s.claim != claim {
		s.mu.Unlock()
		s.topic.Window().Release(a)
		return
	}
	s.claim = nil
	s.in.Grant(a)
	s.tell()
	s.mu.Unlock()
}
