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
	Sent    uint64 // no message from this sequence on can have been sent: see [Outbox]
	Pending uint64 // the number of messages that are not settled
	Bytes   int64  // what these count against the quota, in bytes; an estimate

	// Openings says where the stream stood when the outbox was opened, by ascending Epoch: an opening that is missing
	// found it where the one before did, and one before the first found no stream. Nil: that is not known. It must not
	// be modified.
	Openings []Opening
}

// Opening is where a stream stood when its [Outbox] was opened.
type Opening struct {
	Epoch uint64
	Next  uint64 // the sequence that the next message would get
}

// Incarnation is one opening of an [Outbox].
type Incarnation struct {
	Epoch uint64
	ID    [16]byte // random
}

// Batch is a run of messages with consecutive sequences.
type Batch struct {
	First    uint64   // the sequence of the first message; if there is none, the sequence to call Readable with
	Messages [][]byte // encoded; they must not be modified, and stay valid
}

// Next returns the sequence after the last of the batch, which is the one to read from next.
func (b *Batch) Next() uint64 { return b.First + uint64(len(b.Messages)) }

// Outbox is a durable queue of encoded messages behind one or more publishers. A publisher appends messages to it when
// its user publishes them, and Append returns when they are durable. One of the publishers delivers: it reads the
// messages of each stream, sends them, and settles them when they were handled. An Outbox knows neither the format of a
// message nor how it is sent.
//
// Publishers call Append and Drain on their users' goroutines. The publisher that delivers calls the other methods,
// from goroutines of its own, in the time between Acquire and the call of release. All methods may be called
// concurrently, except that each stream has one reader at a time. Append, Drain and Acquire can block for as long as
// their contexts allow; the others do not wait for other callers, and Read may read from the disk.
//
// An Outbox can be copied with the machine that it is on, or restored from a backup. Receivers would then take messages
// of the one for those of the other that have the same sequences. So an Outbox draws a random incarnation whenever it
// is opened, keeps the list of its own, and says of each stream which messages cannot have been sent yet: those that no
// earlier process stored and that were not read since; and where it stood at each opening: an earlier incarnation
// cannot have sent what was stored by a later one. A publisher that meets a receiver which knows other incarnations or
// other messages calls Renounce, and sends all that is pending under the new identity.
//
// The owner of an Outbox closes it; publishers do not. Append, Drain, Read, Readable, Settle and Err return [ErrClosed]
// after that, and an error that wraps [ErrFailed] after a failed write.
type Outbox interface {
	// ID returns the random id of the outbox. It changes only with Renounce, and is part of the identity by which
	// receivers know its streams.
	ID() [16]byte

	// Secret returns random bytes that prove the ownership of the id. They change with the id, and must not be
	// disclosed or logged.
	Secret() [16]byte

	// Epoch returns a number that grows each time the outbox is opened, so that a receiver can refuse a predecessor
	// that still runs. It is durable before the outbox is used, and greater than 0.
	Epoch() uint64

	// Lineage returns the incarnations of the outbox under its present id, as far as it remembers them. The last one is
	// the present one, with a random ID; older ones that had none are left out. The caller must not modify the result.
	Lineage() []Incarnation

	// Renounce gives the outbox a new id and secret, and returns once that is durable. It returns false, and does
	// nothing, if the id was drawn since the outbox was opened: then no other outbox can have it.
	Renounce() (renounced bool, err error)

	// Append stores messages at the end of stream k, all of them or none, and creates the stream if there is none. It
	// returns the sequence of the first message once all of them are durable; the others follow without a gap. The
	// caller may reuse the messages when Append has returned, even with an error. Without messages Append does nothing.
	//
	// Nothing was stored if the error is a [*FullError] (which matches [ErrOutboxFull]), a [*SizeError] or [ErrClosed],
	// or if ctx ended before the messages had their sequences. After an [*UnconfirmedError], or an error that wraps
	// [ErrFailed], it is not known whether the messages were stored.
	Append(ctx context.Context, k Key, messages ...[]byte) (first uint64, err error)

	// Drain waits until no message of any stream is pending. It returns nil then, and the context's error if ctx ends
	// first.
	Drain(ctx context.Context) error

	// Acquire waits until no other publisher delivers the outbox, and gives the caller that duty: one publisher at a
	// time keeps the order of each stream. The caller must call release once, when its calls of the methods below have
	// ended. The only error is the context's.
	Acquire(ctx context.Context) (release func(), err error)

	// Err returns [ErrClosed] after the outbox was closed, an error that wraps [ErrFailed] after a failed write, and
	// otherwise nil.
	Err() error

	// Streams returns all streams in the order of their numbers, including those that have nothing pending. Once the
	// outbox is closed or has failed, it returns the last state.
	Streams() []Stream

	// NewStreams returns a channel that is closed when the next stream is created, and when the outbox is closed or
	// fails. A caller that calls NewStreams before Streams misses none.
	NewStreams() <-chan struct{}

	// Read returns durable messages of stream k from sequence from on: as many as fit in maxBytes bytes, but at least
	// one. It skips messages that are settled, so First of the batch can be greater than from. It skips no others, and
	// a batch has no gap. If there is no message to return, the batch is empty and its First is the sequence to call
	// Readable with.
	//
	// Read returns [ErrUnknownStream] if there is no stream k, and a [*CorruptError] if messages cannot be read. That
	// error says which; a caller that settles them can read the messages behind them.
	Read(k Key, from uint64, maxBytes int) (Batch, error)

	// Readable returns a channel that is closed when message seq of stream k can be read, and when the outbox is closed
	// or fails. It returns [ErrUnknownStream] if there is no stream k. Further calls with the same sequence may return
	// the same channel.
	Readable(k Key, seq uint64) (<-chan struct{}, error)

	// Settle records that messages of stream k need not be kept: those up to and including sequence through (0 for
	// none), and those in ranges, which may be in any order and may overlap. It ignores sequences that Read could not
	// return yet. It returns [ErrUnknownStream] if there is no stream k.
	//
	// What is settled need not be durable when Settle returns. After a crash Read can return such messages again; a
	// receiver that has them drops them by their sequences.
	Settle(k Key, through uint64, ranges ...Range) error

	// Forget removes stream k, and returns once that is durable. It returns [ErrPending] while messages are pending,
	// and [ErrUnknownStream] if there is no stream k. A later Append to the same key creates a new stream with a new
	// number.
	Forget(ctx context.Context, k Key) error
}

// Readier is an [Outbox] that knows whether it would take messages now. A publisher that has one is ready when that is.
type Readier interface {
	// Ready waits until Append would take messages, or ctx is done: then the error says why not, for a person, such as
	// a [*NotReadyError]. It returns at once if that cannot change. With a ctx that is done it only looks, and must not
	// block. It may be called concurrently with all methods, and after the outbox was closed.
	Ready(ctx context.Context) error
}

// Sharer is an [Outbox] by which its publishers in a process find each other: one of them delivers, and tells the one
// that published a message when that is refused. With an Outbox that is none, what is refused goes to the OnFailure of
// the publisher that delivers.
type Sharer interface {
	// Shared returns what fresh returned when it was called for the first time. It calls fresh once, is called when a
	// publisher is made, and need not outlive the process. It must not block.
	Shared(fresh func() any) any
}
