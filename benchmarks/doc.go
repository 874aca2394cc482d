// Package benchmarks compares the transport with what its users would pick instead.
//
//	go run ./benchmarks/outbox --quick
//
// Contestants take turns round by round in one process, every message is accounted for, and a run that loses one fails.
// internal/measure has what all of that rests on; internal/durable has those that put messages on disk, internal/recovery
// the crashes.
package benchmarks
