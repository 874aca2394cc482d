package receiver

import (
	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// An ephemeral topic ends with its last subscription, and its streams with it. The acks that are due go to the senders
// before the end does, so that a reply that was handled is not taken for one that was dropped. A stream is kept until
// its sender has confirmed the end with a Release, or for as long as the name of its topic, for a sender whose
// connection was lost meanwhile.

// appendEndLocked tells the sender of an ended stream what is settled, and then that nothing else will be.
func (s *stream) appendEndLocked(c *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.appendAcksLocked(c)
	c.appendControlLocked(&wire.Frame{Body: &wire.Frame_Reject{Reject: s.in.Refuse(s.ended)}})
}

// appendAcksLocked appends the acks that are due to the control frames, so that they go before the next of these. The
// caller must hold c.mu too.
func (s *stream) appendAcksLocked(c *conn) {
	for {
		ack, ok := s.in.Ack()
		if !ok {
			return
		}
		if out, err := c.enc.AppendAck(c.pendingControl, ack); err == nil { // its size is bounded
			c.pendingControl = out
		}
	}
}

// answerEndedLocked answers the Open of a sender that was away when the stream ended.
func (s *stream) answerEndedLocked(c *conn, f *wire.Open) {
	c.appendOpened(s.in.Attach(f.Handle, f.Base))
	s.appendEndLocked(c)
	s.in.Detach()
}

// settled is what of an ended stream was settled, for the stream that goes on in its place when the topic exists again.
func (s *stream) settled() []session.Range {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.Settled(nil)
}

// removeEndedLocked removes the streams of a topic that ended a while ago.
func (r *Receiver) removeEndedLocked(t *dispatch.Topic) {
	for s := range r.streams[t] {
		r.removeLocked(s)
	}
}

// retire removes a topic that has neither subscriptions nor publishers, and keeps nothing for any.
func (r *Receiver) retire(t *dispatch.Topic) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.streams[t]) == 0 {
		r.retireLocked(t)
	}
}

func (r *Receiver) retireLocked(t *dispatch.Topic) {
	if r.topics[t.Name()] == t && t.Retire() {
		r.deleteTopicLocked(t.Name())
	}
}

func (r *Receiver) deleteTopicLocked(name string) {
	delete(r.topics, name)
	r.topics = buffers.Shrink(r.topics, &r.mostTopics)
}
