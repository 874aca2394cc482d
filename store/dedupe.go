package store

// StreamID identifies the flow of messages from one publisher to one topic, across connections and restarts of both sides.
// It is comparable and can be used as a map key.
type StreamID struct {
	Publisher [16]byte // the publisher's id
	Stream    uint64   // the publisher's number for the stream
	Topic     string   // the topic's name on the wire, which can be empty
}

// Position identifies a message by its place in its stream. A handler that stores the position together with the effect of
// the message makes that effect exactly once: see [DedupeStore].
type Position struct {
	StreamID
	Epoch    uint64 // the publisher's epoch
	Sequence uint64 // the first message has 1
}

// StreamState is what a [DedupeStore] keeps of one stream.
type StreamState struct {
	// Epoch is the publisher's epoch when it last opened the stream. 0 means that it is not known.
	Epoch uint64
	// Secret binds the publisher's id to its owner and must not be disclosed. The zero value means that it is not known.
	Secret [16]byte
	// Settled holds the sequences that need not be delivered again, as ascending and disjoint ranges.
	Settled []Range
}

// DedupeStore remembers across restarts of the subscriber's process which messages were settled, so that a message that its
// publisher sends again is not delivered again. A message is acked to its publisher, and makes room for another one in its
// subscription, only after Save has returned: when the process is killed, at most the messages in flight (MaxInFlight for
// each subscription) are delivered twice.
//
// Where the handler itself stores the position of a message in the transaction of its effect, Load can read that back and
// Save can do nothing. Then no effect happens twice. Such a Load leaves Epoch and Secret empty, because a position does not
// hold both; the listener then forgets with its end which predecessors of a publisher are fenced.
//
// Listeners call the methods with no lock held, and may call them concurrently, except that each listener calls Save from
// one goroutine at a time.
type DedupeStore interface {
	// Load returns what is known of a stream. If that is nothing, ok is false and err is nil. The listener calls it when a
	// publisher opens a stream that the listener does not have in memory. An error refuses the stream, and the publisher
	// tries again.
	Load(id StreamID) (state StreamState, ok bool, err error)

	// Save replaces the states of the given streams, either all of them or none, and returns once that is durable. It must
	// not modify states, nor keep it after it has returned. After an error the listener acks nothing until it is opened
	// anew: what it still delivers, up to the credit that it has granted, is then delivered again.
	Save(states map[StreamID]StreamState) error

	// Forget drops a stream that has ended. It is no error if the stream is not known.
	Forget(id StreamID) error
}
