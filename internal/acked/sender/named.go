package sender

import (
	"context"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// Named is what one owner publishes to a topic, in the stream that all owners of a Sender share. Its methods are safe
// for concurrent use.
type Named struct {
	sender *Sender
	topic  string // as Sender.Publish takes it

	// Guarded by the Sender's mutex.
	out  *session.Outbound // has the owner's last message; nil before the first
	last uint64            // its sequence
}

// Named returns what an owner publishes to a topic with.
func (s *Sender) Named(topic string) *Named { return &Named{sender: s, topic: topic} }

// Of is what the owners of one stream have in common.
func (n *Named) Of() any {
	return struct {
		s     *Sender
		topic string
	}{n.sender, n.topic}
}

// LaterThan tells whether the owner's last message came after that of another one of the same stream.
func (n *Named) LaterThan(other *Named) bool {
	n.sender.mu.Lock()
	defer n.sender.mu.Unlock()
	return n.out != nil && (n.out != other.out || n.last > other.last)
}

// Publish is Sender.Publish.
func (n *Named) Publish(
	ctx context.Context, b *session.Batch, level session.Level, timeout time.Duration,
) (enqueued int, lacking []session.Range, err error) {
	p := &publication{sender: n.sender, named: n, topic: n.topic, batch: b, level: level, timeout: timeout}
	return p.run(ctx)
}

// Unsettled is the number of messages of the stream that are not settled, of all owners.
func (n *Named) Unsettled() int { return n.sender.Unsettled(n.topic) }

// Flush is Sender.Flush.
func (n *Named) Flush(ctx context.Context) error { return n.sender.Flush(ctx, n.topic) }

// Drain is Sender.Drain.
func (n *Named) Drain(ctx context.Context) error { return n.sender.Drain(ctx, n.topic) }

// AwaitReceived waits until the peer has received, at some time, all messages up to the owner's last one, or ctx is
// done. It returns the number of those that the peer is not known to have.
func (n *Named) AwaitReceived(ctx context.Context) (left int) {
	n.sender.mu.Lock()
	out, last := n.out, n.last
	n.sender.mu.Unlock()
	if out == nil {
		return 0
	}
	p := publication{sender: n.sender, stream: out}
	return p.awaitReceived(ctx, last)
}

// awaitReceived waits until the messages of the stream up to a sequence were received, or ctx is done, and returns the
// number of those that were not.
func (p *publication) awaitReceived(ctx context.Context, last uint64) (left int) {
	s := p.lock()
	left = p.stream.UnreceivedUpTo(last)
	if left == 0 || s.closed {
		s.mu.Unlock()
		return left
	}
	w := s.waitLocked(p.stream, session.Received, session.Range{First: last, Last: last}, time.Time{}) // what is received is a prefix
	s.mu.Unlock()
	s.kick()
	_, _, _ = p.confirm(ctx, []*session.Waiter{w}, false) // what is left shows below
	defer p.lock().mu.Unlock()
	return p.stream.UnreceivedUpTo(last)
}
