package store

// StreamID identifies the stream of messages from one publisher to one topic, across connections and across restarts of
// both sides. It is comparable and can be used as a map key.
type StreamID struct {
	Publisher [16]byte // the publisher's id
	Stream    uint64   // the publisher's number for the stream
	Topic     string   // the topic's name on the wire, which can be empty
}

// Position identifies a message by its place in its stream. A handler that stores the position in the same transaction
// as the effect of the message has that effect exactly once: see [DedupeStore].
type Position struct {
	StreamID
	Epoch    uint64 // the publisher's epoch
	Sequence uint64 // the first message of a stream has 1
	// Incarnation names the opening of the publisher's outbox that sent last: see [Outbox]. It is zero without an
	// outbox.
	Incarnation [16]byte
}

// StreamState is what a [DedupeStore] keeps of one stream.
type StreamState struct {
	// Epoch is the publisher's epoch when it last opened the stream. 0 means that it is not known.
	Epoch uint64
	// Secret proves that a publisher owns its id, and must not be disclosed or logged. The zero value means that it is
	// not known.
	Secret [16]byte
	// Incarnation names the opening of the publisher's outbox that last changed the state. It tells a copy of the
	// outbox from the outbox itself: without it, what a copy sends can be taken for what was settled before. The zero
	// value means that it is not known.
	Incarnation [16]byte
	// Settled holds the sequences that need not be delivered again, as ascending ranges that do not overlap.
	Settled []Range
	// Groups holds, by consumer group, the sequences that need not be delivered again to that group, although other
	// groups have yet to settle them: ascending ranges that do not overlap. Nil means that there are none.
	Groups map[string][]Range
}

// DedupeStore remembers which messages were settled across restarts of the subscriber's process, so that a message that
// its publisher sends again is not delivered again. Only after Save has returned does the listener ack a message, and
// let another one into its subscription. When the process is killed, at most the messages in flight (MaxInFlight for
// each subscription) are delivered twice.
//
// A handler that stores the position of each message in the transaction of its effect needs no second record of it:
// Load can read those positions back, and Save can do nothing. No effect happens twice then. Such a Load leaves Epoch
// and Secret empty, because positions do not hold both; so a listener that restarts no longer refuses the predecessors
// of a publisher. It should return the Incarnation of the newest position.
//
// Save and Forget are called from one goroutine at a time, however many listeners of a process use the store, and Load
// from any number. No lock is held that anything else waits for, so that a method may block.
type DedupeStore interface {
	// Load returns what is known of a stream; ok is false, and err nil, if nothing is. The listener calls it when a
	// publisher opens a stream that the listener does not have in memory. An error refuses the stream, and the
	// publisher tries again later.
	Load(id StreamID) (state StreamState, ok bool, err error)

	// Save replaces the states of the given streams, either all of them or none, and returns once that is durable. It
	// must not modify states, nor keep it after it has returned. After an error the listener acks nothing, and grants
	// no more credit, until it is opened again: what it still delivers, up to the credit that it had granted, will then
	// be delivered a second time.
	Save(states map[StreamID]StreamState) error

	// Forget drops a stream that has ended. A stream that is not known is no error.
	Forget(id StreamID) error
}
