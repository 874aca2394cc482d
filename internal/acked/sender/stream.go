package sender

import (
	"context"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// StreamConfig says what a Stream is. Alternative and Moved may be nil.
type StreamConfig struct {
	Topic     string // as it travels on the wire
	Ephemeral bool   // see session.Ephemeral

	// Alternative returns where the Stream should be while its Sender takes nothing; nil or the same Sender: it stays. It is
	// called with no lock held, and must not block.
	Alternative func(*Stream) *Sender
	// Moved is called after each move, with no lock held.
	Moved func(Moved)
}

// Moved says what a move was.
type Moved struct {
	From, To *Sender
	Topic    string
	Tenure   uint64
	Messages int // that moved
	Repeats  int // of these, those that may come twice
}

// Stream is one flow of messages to a topic, at one Sender at a time.
type Stream struct {
	cfg    StreamConfig
	sender *Sender
	name   string
}

// NewStream returns a Stream at s.
func (s *Sender) NewStream(cfg StreamConfig) *Stream {
	st := &Stream{cfg: cfg, sender: s, name: cfg.Topic}
	if cfg.Ephemeral {
		st.name = session.Ephemeral(cfg.Topic)
	}
	return st
}

// Publish is Sender.Publish for this Stream.
func (st *Stream) Publish(ctx context.Context, b *session.Batch, level session.Level, timeout time.Duration) (enqueued int, lacking []session.Range, err error) {
	return st.sender.Publish(ctx, st.name, b, level, timeout)
}

// Sender is where the Stream is now.
func (st *Stream) Sender() *Sender { return st.sender }

// MoveTo asks for a move. It does not block.
func (st *Stream) MoveTo(*Sender) {}

// Moving tells whether a move is under way.
func (st *Stream) Moving() bool { return false }

// Unsettled is the number of messages that are not settled.
func (st *Stream) Unsettled() int { return st.sender.Unsettled(st.name) }

// Undelivered is the number of messages that no receiver is known to hold now.
func (st *Stream) Undelivered() int { return st.sender.Undelivered(st.name) }

// Unreceived is the number of messages that the receiver is not known to have.
func (st *Stream) Unreceived() int { return st.sender.Unreceived(st.name) }

// Flush waits until a receiver holds every message that was enqueued so far.
func (st *Stream) Flush(ctx context.Context) error { return st.sender.Flush(ctx, st.name) }

// Drain waits until every message that was enqueued so far is settled.
func (st *Stream) Drain(ctx context.Context) error { return st.sender.Drain(ctx, st.name) }

// AwaitReceived waits until the receiver has received, at some time, every message that was enqueued so far.
func (st *Stream) AwaitReceived(ctx context.Context) error {
	return st.sender.AwaitReceived(ctx, st.name)
}

// Room tells whether a small message can be sent now: the window has room, and no message waits for the peer's credit.
func (st *Stream) Room() bool {
	st.sender.mu.Lock()
	defer st.sender.mu.Unlock()
	o := st.sender.client.Find(st.name)
	return o == nil || o.HasRoom()
}

// Progress returns the lowest sequence that is not settled, and the one after the last.
func (st *Stream) Progress() (head, tail uint64) {
	st.sender.mu.Lock()
	defer st.sender.mu.Unlock()
	if o := st.sender.client.Find(st.name); o != nil {
		return o.Progress()
	}
	return 0, 0
}

// End says that the owner uses the Stream no more. It ends when everything is settled.
func (st *Stream) End() {}
