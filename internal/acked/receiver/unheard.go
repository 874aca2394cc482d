package receiver

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// A rejection is on its way until its sender has confirmed it: the sender may leave, or be killed, before it has read
// it, and would not miss the message either. So what says who else answers for the message (dispatch.Refusal.Unheard)
// is kept that long, and called when no confirmation can be expected: at once if the sender keeps nothing any more,
// when it has been away for DeadAfter, when its stream is forgotten, and at Close. A sender that comes back later is
// told all the same.

// maxUnheard is how many bytes of messages a Receiver keeps for that. What exceeds it is answered for at once, though
// the sender may hear of it, too.
const maxUnheard = 16 << 20

// unheard is a rejection that its sender has not confirmed.
type unheard struct {
	tell  func()
	bytes int
}

// keepUnheardLocked keeps what is to be called if the sender does not hear of a refusal. It returns what the caller has
// to call at once, without the lock, or nil.
func (s *stream) keepUnheardLocked(seq uint64, r dispatch.Refusal) func() {
	if r.Unheard == nil {
		return nil
	}
	total := s.receiver.unheardBytes.Add(int64(r.Bytes))
	if !s.Kept() || total > maxUnheard {
		s.receiver.unheardBytes.Add(-int64(r.Bytes))
		return r.Unheard
	}
	if s.unheard == nil {
		s.unheard = map[uint64]unheard{}
	}
	s.unheard[seq] = unheard{r.Unheard, r.Bytes}
	return nil
}

// heardLocked notes that the sender has confirmed a rejection.
func (s *stream) heardLocked(seq uint64) {
	if u, ok := s.unheard[seq]; ok {
		s.receiver.unheardBytes.Add(-int64(u.bytes))
		delete(s.unheard, seq)
	}
}

// takeUnheardLocked takes out what the sender has not heard of. The caller calls what it returns without the lock.
func (s *stream) takeUnheardLocked() (tell []func()) {
	for _, u := range s.unheard {
		s.receiver.unheardBytes.Add(-int64(u.bytes))
		tell = append(tell, u.tell)
	}
	s.unheard = nil
	s.stopUnheardTimerLocked()
	return tell
}

// takeUnheard is takeUnheardLocked for a stream that is forgotten. A sender that has taken the stream back has the
// messages.
func (s *stream) takeUnheard() []func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	tell := s.takeUnheardLocked()
	if s.revoked.Load() {
		return nil
	}
	return tell
}

// awaitReturnLocked gives a sender whose connection has ended some time to come back.
func (s *stream) awaitReturnLocked() {
	if len(s.unheard) == 0 || s.receiver.ctx.Err() != nil {
		return
	}
	s.unheardTimer = time.AfterFunc(s.receiver.cfg.DeadAfter, func() { // replaceConn and takeUnheardLocked stop it
		s.mu.Lock()
		var tell []func()
		if s.conn == nil {
			tell = s.takeUnheardLocked()
		}
		s.mu.Unlock()
		callAll(tell)
	})
}

func (s *stream) stopUnheardTimerLocked() {
	if s.unheardTimer != nil {
		s.unheardTimer.Stop()
		s.unheardTimer = nil
	}
}

// settleUnheard answers, when the Receiver closes, for what senders have not heard of that keep nothing.
func (r *Receiver) settleUnheard() {
	for _, s := range r.allStreams() {
		kept := s.Kept()
		if tell := s.takeUnheard(); !kept {
			callAll(tell)
		}
	}
}

// tellUnheard answers for what the senders of streams that were forgotten have not heard of. It is called with no lock
// held.
func (r *Receiver) tellUnheard() {
	r.mu.Lock()
	tell := r.unheard
	r.unheard = nil
	r.mu.Unlock()
	callAll(tell)
}

func callAll(all []func()) {
	for _, f := range all {
		f()
	}
}
