// Package store defines what the library asks of durable storage: an [Outbox] keeps a publisher's messages until they
// are delivered, and a [DedupeStore] remembers which messages a subscriber has handled.
//
// The package holds only interfaces, their types, and the errors that callers match, so a program that stores nothing
// compiles no storage engine. The module github.com/buffstreams/watermill-buffstreams/storage implements both
// interfaces, in its packages outbox and dedupe.
//
// The messages of one publisher to one topic form a stream. They carry consecutive sequences, and the first has
// sequence 1.
package store

// Range is an interval of sequences, both ends included. A Range whose Last is less than its First is empty.
type Range struct {
	First, Last uint64
}
