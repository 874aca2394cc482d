package receiver

import (
	"strings"
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

// accept returns the number of messages that were received before, and the room of those that did not go into the log.
// full tells that the window has no room for more credit.
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

// Settled implements dispatch.Source: every group is done with a run of messages. With a dedupe store it blocks until
// that is durable.
func (s *stream) Settled(first, last uint64) {
	r := store.Range{First: first, Last: last}
	if s.committer != nil && !s.isReleased() && s.persist(r) != nil {
		return // the committer has logged it; the publisher keeps the messages
	}
	c, over := s.settle(r)
	if c != nil {
		c.flusher.Kick()
	}
	switch {
	case over:
		s.receiver.forget(s)
	case c == nil && s.topic.Unused(): // its connection ended before this was settled
		s.receiver.removeUnused(s)
	}
}

// settle returns the connection whose flusher is to be kicked. over tells that the stream's sender has ended it and
// that this was the last of its messages.
func (s *stream) settle(r store.Range) (c *conn, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.persistedLocked(r)
	s.in.Settle(r.First, r.Last)
	s.markDirtyLocked()
	s.answerLastLocked()
	return s.conn, s.overLocked()
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
	unheard, over := s.refuse(seq, code, r)
	if unheard != nil {
		unheard()
	}
	if over {
		s.receiver.forget(s)
	}
}

// refuse returns what is to be called as the sender does not hear of the refusal, or nil. over tells that the stream's
// sender has ended it and this was the last of its messages.
func (s *stream) refuse(seq uint64, code wire.Code, r dispatch.Refusal) (unheard func(), over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejectLocked(seq, code, r.Reason)
	unheard = s.keepUnheardLocked(seq, r)
	s.answerLastLocked()
	return unheard, s.overLocked()
}

// Position implements dispatch.Source.
func (s *stream) Position(seq uint64) store.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return store.Position{StreamID: s.id, Epoch: s.epoch, Incarnation: s.last.ID, Sequence: seq}
}

// maxReason bounds the reason in a Reject or Failure, in bytes.
const maxReason = 512

// maxUnconfirmed is how many rejections of a stream may be unconfirmed, whatever the window: a sender may confirm them
// when the message's owner has dealt with it.
const maxUnconfirmed = 16384

// rejectLocked tells the sender that a message will not be handled. The rejection is kept until the sender confirms it.
func (s *stream) rejectLocked(seq uint64, code wire.Code, reason string) {
	if s.conn != nil && s.in.Rejected() >= max(maxUnconfirmed, s.conn.receiver.cfg.WindowMessages) {
		s.conn.closeNow() // rejections of a peer that confirms none would pile up
	}
	s.receiver.counters.rejected.Add(1)
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
	s.heardLocked(seq)
	s.noteSenderLocked()
}
