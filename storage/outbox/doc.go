// Package outbox is a durable queue of encoded messages that wait to be delivered. It implements store.Outbox on a
// directory that one process at a time has open.
//
// [Outbox.Append] returns when the messages are fsynced. The caller that delivers them takes that duty with
// [Outbox.Acquire], reads each stream in order with [Outbox.Read], waits for new messages with [Outbox.Readable], and
// says with [Outbox.Settle] which messages need not be kept any longer. A stream is a pair of destination and topic.
// Its messages carry consecutive sequences from 1, which are never given out twice, so that a receiver can drop the
// messages that it already has.
//
// Package store has the interface, its types, such as store.Key, and the errors that its methods share with other
// implementations, such as store.ErrOutboxFull.
//
// The package knows neither sockets nor the format of a message. docs/outbox.md describes the layout on disk, what a
// crash leaves behind, and why the package is built on the storage engine that it uses.
package outbox
