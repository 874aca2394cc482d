package pool

import (
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// StreamID names one publisher's flow to one topic, across connections and restarts of both sides.
type StreamID struct {
	Publisher [16]byte
	Stream    uint64
	Topic     string
}

// Position is where a message stands in its stream. A handler that stores it together with its effect makes the effect
// exactly once: see DedupeStore.
type Position struct {
	StreamID
	Epoch    uint64
	Sequence uint64 // from 1 on
}

// Range is a run of sequences, both ends included.
type Range = session.Range

// StreamState is what a DedupeStore keeps of a stream.
type StreamState struct {
	Epoch   uint64
	Secret  [16]byte // binds the publisher id to its owner; keep it to yourself
	Settled []Range  // ascending and disjoint
}

// DedupeStore remembers across restarts of the subscriber's process which messages were settled, so that a publisher's
// resend does not bring them again. A message is acked to its publisher only after Save has returned, and its
// subscription's slot is free only then: when the process is killed, at most the messages in flight (MaxInFlight for each
// subscription) are delivered twice.
//
// Where the handler itself stores PositionFromContext in the transaction of its effect, Load reads that back and Save can
// do nothing: then not even those have their effect twice. Such a Load leaves Epoch and Secret empty, as a Position does
// not have them all; that a predecessor of the publisher is fenced is then forgotten with the listener.
//
// Load may be called concurrently with Save; Save is called by one goroutine at a time.
type DedupeStore interface {
	// Load returns what is known of a stream; ok is false when that is nothing.
	Load(StreamID) (state StreamState, ok bool, err error)
	// Save makes the states durable, all of them together. After an error the listener acks nothing more until it is opened
	// anew: what it goes on to deliver meanwhile, up to the credit that it has given, then comes again.
	Save(map[StreamID]StreamState) error
	// Forget drops a stream that has ended.
	Forget(StreamID) error
}
