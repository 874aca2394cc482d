// Package outbox is a durable queue of encoded messages that wait to be
// delivered.
//
// An Outbox is one directory that one process owns. Append returns once the
// messages are fsynced; whoever delivers them reads each stream from a cursor
// (Read), learns of new messages without polling (Ready), and says what need
// not be kept any longer (Settle). A stream is a pair of destination and topic;
// its messages carry consecutive sequences from 1 on that are never given out
// twice, so that a receiver can drop what it already has.
//
// An Outbox is a store.Outbox; package store has the types and the errors that
// its methods share with others, such as store.Key and store.ErrOutboxFull.
//
// The package knows neither sockets nor the format of a message. Its layout on
// disk, what a crash leaves behind and why it rests on the engine it does are
// told in docs/outbox.md.
package outbox
