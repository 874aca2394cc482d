package store

import "context"

// Key identifies a stream of an [Outbox]. It is comparable and can be used as a map key.
type Key struct {
	Destination string // the address that the messages go to
	Topic       string // the topic's name there, which can be empty
}

// Stream describes a stream of an [Outbox] at one moment.
type Stream struct {
	Key     Key
	ID      uint64 // the stream's number: greater than 0, small, and never used for another stream
	First   uint64 // the lowest sequence that is not settled
	Next    uint64 // the sequence that the next message gets
	Pending uint64 // the number of messages that are not settled
	Bytes   int64  // what these count against the quota, in bytes; an estimate
}

// Batch is a run of messages with consecutive sequences.
type Batch struct {
	First    uint64   // the sequence of the first message; without messages, the sequence to give to Ready
	Messages [][]byte // encoded; they must not be modified, and stay valid
}

// Next returns the sequence after the last of the batch, which is the one to read from next.
func (b *Batch) Next() uint64 { return b.First + uint64(len(b.Messages)) }

// Outbox is a durable queue of encoded messages behind one or more publishers. Publish appends to it, and returns when the
// messages are durable. One of the publishers delivers: it reads the messages of each stream, sends them, and settles them
// when they were handled. An Outbox knows neither the format of a message nor how it is sent.
//
// Append and Drained are called by publishers on behalf of their users, the other methods by the publisher that delivers.
// All methods may be called concurrently, except that each stream has one reader at a time. A publisher does not close its
// Outbox. Once the owner has closed it every method that can fail returns [ErrClosed]; after a failed write every such
// method returns an error that wraps [ErrFailed].
type Outbox interface {
	// ID returns the random id of the outbox. It stays the same for the outbox's life, and is part of the identity by which
	// receivers know its streams.
	ID() [16]byte

	// Secret returns random bytes that prove the ownership of the id. They stay the same for the outbox's life, and must
	// not be disclosed or logged.
	Secret() [16]byte

	// Epoch returns a number that grows each time the outbox is opened, so that a receiver can refuse a predecessor that
	// still runs. It is durable before the outbox is used, and greater than 0.
	Epoch() uint64

	// Append stores messages at the end of stream k, all of them or none, and creates the stream if there is none. It
	// returns the sequence of the first message once all of them are durable; the others follow without a gap. The caller
	// may reuse the messages when Append has returned, even with an error. Without messages Append does nothing.
	//
	// Nothing was stored if the error is a [*FullError] (which matches [ErrOutboxFull]), a [*SizeError] or ErrClosed, or if
	// ctx ended before the messages had their sequences. With an [*UnconfirmedError], or one that wraps ErrFailed, it is
	// not known whether they were.
	Append(ctx context.Context, k Key, messages ...[]byte) (first uint64, err error)

	// Drained waits until no message of any stream is pending. It returns nil then, and the context's error if ctx ends
	// first.
	Drained(ctx context.Context) error

	// Deliver waits until no other publisher delivers the outbox, and gives the caller that duty: one at a time keeps the
	// order of each stream. The caller must call release once, when it has ended its calls of the methods below. The only
	// error is the context's.
	Deliver(ctx context.Context) (release func(), err error)

	// Err returns ErrClosed after the outbox was closed, an error that wraps ErrFailed after a failed write, and otherwise
	// nil.
	Err() error

	// Streams returns all streams in the order of their numbers, including those that have nothing pending. Once the outbox
	// is closed or has failed, it returns the last state.
	Streams() []Stream

	// NewStreams returns a channel that is closed when the next stream is created, and when the outbox is closed or fails.
	// A caller that calls NewStreams before Streams misses none.
	NewStreams() <-chan struct{}

	// Read returns durable messages of stream k from sequence from on: as many as fit in maxBytes bytes, but at least one.
	// It skips messages that are settled, so First of the batch can be greater than from; it never skips others, and a
	// batch has no gap. If there is no such message the batch is empty, and its First is the sequence to wait for with
	// Ready.
	//
	// Read returns [ErrUnknownStream] if there is no stream k, and a [*CorruptError] if messages cannot be read. That error
	// says which, and a caller that settles them can read on behind them.
	Read(k Key, from uint64, maxBytes int) (Batch, error)

	// Ready returns a channel that is closed when message seq of stream k can be read, and when the outbox is closed or
	// fails. It returns ErrUnknownStream if there is no stream k. Further calls with the same sequence may return the same
	// channel.
	Ready(k Key, seq uint64) (<-chan struct{}, error)

	// Settle records that messages of stream k need not be kept: those up to and including sequence through (0 for none),
	// and those in ranges, which may be in any order. Messages that were not appended are ignored. Settle returns
	// ErrUnknownStream if there is no stream k.
	//
	// What is settled need not be durable when Settle returns. After a crash such messages can be read again; a receiver
	// that has them drops them by their sequences.
	Settle(k Key, through uint64, ranges ...Range) error
}
