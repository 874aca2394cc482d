// Package benchmarks compares the transport with what its users would pick instead.
//
//	go run ./benchmarks/compare --quick
//	go run ./benchmarks/outbox --quick
//
// Contestants take turns round by round in one process, every message is accounted for, and a run that loses one fails.
// guard does so in CI, with wide margins. internal/measure has what all of that rests on, internal/peers those who are
// compared, internal/drive what puts them under load, in one process or two; internal/durable has those that put
// messages on disk, internal/recovery the crashes.
package benchmarks
