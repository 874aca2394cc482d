package receiver

import (
	"strings"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// stream joins a publisher's stream to its topic: what arrives goes into the topic's log, what is settled there goes
// back as acks on whichever connection the stream has then. It outlives connections.
//
// mu guards everything but the first group. The topic's window grants with no lock held.
type stream struct {
	id        store.StreamID
	topic     *dispatch.Topic
	committer *committer // nil: nothing survives the process

	mu      sync.Mutex
	epoch   uint64
	secret  [16]byte
	unsaved []store.Range // settled, and on their way to the saver
	in      *session.Inbound
	conn    *conn // nil while its publisher is away
	claims  int   // Opens that have found it and have not attached it yet
	ended   bool  // with its topic: what still arrives is ignored
	dirty   bool  // conn knows that there is something to tell
	claim   *flow.Claim
	target  flow.Amount // credit that is kept topped up; it doubles whenever the sender had to ask
	asked   flow.Amount // what the sender asked for last, up to initialTarget
}

// attach binds the stream to a connection. An older connection that still has it is dead and does not know it yet.
func (s *stream) attach(c *conn, f *wire.Open) {
	s.mu.Lock()
	s.claims--
	if s.ended { // in this very moment
		s.mu.Unlock()
		c.send(&wire.Frame{Body: &wire.Frame_Opened{Opened: &wire.Opened{Handle: f.Handle, Code: wire.Code_CODE_TOPIC_GONE}}})
		return
	}
	old := s.conn
	if old == nil {
		s.topic.Window().Share(1)
	}
	returned := s.in.Outstanding()
	opened, rejects := s.in.Attach(f.Handle, f.Base)
	s.conn, s.dirty, s.target, s.asked, s.epoch = c, false, initialTarget, flow.Amount{}, f.Epoch
	c.mu.Lock()
	c.append(&wire.Frame{Body: &wire.Frame_Opened{Opened: opened}})
	for _, r := range rejects {
		c.append(&wire.Frame{Body: &wire.Frame_Reject{Reject: r}})
	}
	c.mu.Unlock()
	s.tell()
	s.mu.Unlock()
	if old != nil && old != c {
		old.closeNow()
	}
	s.topic.Window().Release(returned)
	s.want(c, 0, f.WantMessages, f.WantBytes, f.LeastBytes)
	c.flusher.Kick()
}

// detach takes the stream off a connection that ended.
func (s *stream) detach(c *conn) {
	s.mu.Lock()
	if s.conn != c {
		s.mu.Unlock()
		return
	}
	claim, returned := s.letGo()
	s.mu.Unlock()
	s.giveBack(claim, returned)
}

// letGo forgets the connection and returns what the window gets back. mu is held.
func (s *stream) letGo() (*flow.Claim, flow.Amount) {
	claim, returned := s.claim, s.in.Outstanding()
	if s.conn != nil {
		s.topic.Window().Share(-1)
	}
	s.in.Detach()
	s.conn, s.claim = nil, nil
	return claim, returned
}

// giveBack returns credit and the place in line to the window. mu is not held.
func (s *stream) giveBack(claim *flow.Claim, a flow.Amount) {
	s.topic.Window().Release(a)
	if claim != nil {
		s.topic.Window().Cancel(claim)
	}
}

// fence takes the stream off a connection whose epoch is over, and ends that.
func (s *stream) fence(epoch uint64) {
	s.mu.Lock()
	c := s.conn
	if c == nil || s.epoch >= epoch {
		s.mu.Unlock()
		return
	}
	claim, returned := s.letGo()
	s.mu.Unlock()
	c.closeNow()
	s.giveBack(claim, returned)
}

// on tells whether the stream is open on a connection.
func (s *stream) on(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == c
}

// end ends the stream for good and tells its sender.
func (s *stream) end(reason *session.PeerError) {
	s.mu.Lock()
	s.ended = true
	c := s.conn
	var f *wire.Reject
	if c != nil {
		f = s.in.Refuse(reason)
	}
	claim, returned := s.letGo()
	s.mu.Unlock()
	s.giveBack(claim, returned)
	if c != nil {
		c.send(&wire.Frame{Body: &wire.Frame_Reject{Reject: f}})
	}
}

// over tells whether the stream has ended, so that its sender may not know it yet.
func (s *stream) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// publish takes messages. The log gets them under mu, so that two connections of one stream cannot swap their order.
func (s *stream) publish(c *conn, f *session.PublishFrame) error {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	if s.conn != c {
		s.mu.Unlock()
		return &session.ProtocolError{Rule: "the stream moved to a newer connection"}
	}
	fresh, first, dup, err := s.in.Accept(f)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	dup = s.append(fresh, first, f.Owned, dup)
	s.mark()
	s.topUp()
	s.mu.Unlock()
	c.flusher.Kick()
	s.topic.Window().Release(dup)
	return nil
}

// append puts messages into the log, except those over the limit, which are rejected. It returns free with the room of
// these added. mu is held.
func (s *stream) append(msgs [][]byte, first uint64, own bool, free flow.Amount) flow.Amount {
	now := time.Now()
	limit := s.conn.receiver.cfg.MaxMessageSize
	from := 0
	for i, m := range msgs {
		if len(m) <= limit {
			continue
		}
		s.topic.Append(s, first+uint64(from), msgs[from:i], now, own)
		s.reject(first+uint64(i), wire.Code_CODE_LIMIT, "message larger than the limit")
		free.Messages++
		free.Bytes += session.EncodedSize(len(m))
		from = i + 1
	}
	s.topic.Append(s, first+uint64(from), msgs[from:], now, own)
	return free
}

// Settled implements dispatch.Source.
func (s *stream) Settled(first, last uint64) {
	if s.committer != nil && s.persist(s.committer, store.Range{First: first, Last: last}) != nil {
		return // it was said in the log; the publisher keeps the message
	}
	s.mu.Lock()
	s.in.Settle(first, last)
	s.mark()
	c := s.conn
	s.mu.Unlock()
	if c != nil {
		c.flusher.Kick()
	}
}

// Position is where one of its messages stands.
func (s *stream) Position(seq uint64) store.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return store.Position{StreamID: s.id, Epoch: s.epoch, Sequence: seq}
}

// Refused implements dispatch.Source.
func (s *stream) Refused(seq uint64, r dispatch.Refusal) {
	code := wire.Code_CODE_FAILED
	if r.Undecodable {
		code = wire.Code_CODE_UNDECODABLE
	}
	s.mu.Lock()
	s.reject(seq, code, r.Reason)
	s.mu.Unlock()
}

// reject tells the sender that a message will not be handled. mu is held.
func (s *stream) reject(seq uint64, code wire.Code, reason string) {
	if s.conn != nil && s.in.Rejected() >= s.conn.receiver.cfg.WindowMessages {
		s.conn.closeNow() // a peer that confirms no rejection would have them pile up here
	}
	f := s.in.Reject(seq, &session.PeerError{Code: code, Reason: truncate(reason, 512)})
	if s.conn != nil {
		s.tell()
		s.conn.send(&wire.Frame{Body: &wire.Frame_Reject{Reject: f}})
	}
}

// cut makes text fit for a frame.
func truncate(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func (s *stream) rejectSeen(seq uint64) {
	s.mu.Lock()
	s.in.RejectSeen(seq)
	s.mu.Unlock()
}

// tell has what the stream has to tell go out. mu is held.
func (s *stream) tell() {
	if s.conn != nil {
		s.mark()
		s.conn.flusher.Kick()
	}
}

// mark puts the stream on its connection's list of those that have something to tell. mu is held.
func (s *stream) mark() {
	if s.conn != nil && !s.dirty {
		s.dirty = true
		s.conn.mark(s)
	}
}

// appendAcks appends what the sender has not been told.
func (s *stream) appendAcks(c *conn, dst []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return dst
	}
	s.dirty = false
	for {
		ack, ok := s.in.Ack()
		if !ok {
			return dst
		}
		if out, err := c.enc.AppendAck(dst, ack); err == nil { // its size is bounded
			dst = out
		}
	}
}

// forgettable tells whether nothing would be lost with the stream's state.
func (s *stream) forgettable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == nil && s.claims == 0 && s.in.Idle()
}

// abandoned tells whether nothing would be lost but rejections that an absent publisher has not confirmed: it can have the
// messages refused once more.
func (s *stream) abandoned() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == nil && s.claims == 0 && s.in.Unsettled() == 0
}

// claimed notes that an Open has found the stream. The endpoint's mu is held, and attach follows.
func (s *stream) claimed() {
	s.mu.Lock()
	s.claims++
	s.mu.Unlock()
}

// wanted tells whether a connection has the stream, or is about to.
func (s *stream) wanted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ended && (s.conn != nil || s.claims > 0)
}

func (s *stream) forgettableBy(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn == c && s.in.Idle()
}

// orphans is the number of unsettled messages that the publisher is not known to keep.
func (s *stream) orphans() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.keeps() {
		return 0
	}
	return s.in.Unsettled()
}
