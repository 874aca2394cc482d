// Package store defines what the library asks of durable storage: an [Outbox] that keeps a publisher's messages until
// they are delivered, and a [DedupeStore] that remembers for a subscriber which messages were handled.
//
// The package holds interfaces, the types in them and the errors that callers match, so that a program that stores
// nothing compiles no storage engine. The packages outbox and dedupe of the module
// github.com/buffstreams/watermill-buffstreams/storage implement them.
//
// Messages of one publisher to one topic form a stream. They carry consecutive sequences, which begin at 1.
package store

// Range is an interval of sequences. Both ends are included. A Range whose Last is less than its First is empty.
type Range struct {
	First, Last uint64
}
