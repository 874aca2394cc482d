// Package recovery measures what an outbox costs whose messages have to wait, and how soon it delivers after a crash.
// One process fills the outbox and is killed, another opens what that left, and every message must be there.
package recovery
