package store

import "time"

// OutboxStats describes an [Outbox] at one moment. An Outbox can have a method Stats() OutboxStats, which must not
// block for long: a publisher's Stats shows what it returns. See [Readier] for what else an Outbox can have.
type OutboxStats struct {
	// Name is what the outbox calls itself, such as its directory.
	Name string `json:"name"`
	// Err says why the outbox takes nothing any more; empty: it works. Closed tells that it was closed.
	Err    string `json:"err,omitempty"`
	Closed bool   `json:"closed,omitempty"`
	// NotReady is why it would not take messages now, if that is so: what its Ready says. It includes Err.
	NotReady []string `json:"not_ready,omitempty"`
	// WritingSince is when the write to the disk that is under way has begun; zero: there is none.
	WritingSince time.Time `json:"writing_since,omitzero"`
	// Delivering tells that a publisher delivers what is in the outbox.
	Delivering bool `json:"delivering"`
	// Pending is the number of messages that are not settled, and Bytes what these count against the quota.
	Pending uint64 `json:"pending"`
	Bytes   int64  `json:"bytes"`
	// QuotaBytes is the most that one destination may have pending; 0: there is no quota.
	QuotaBytes int64 `json:"quota_bytes"`
	// OldestUnsettled is when the oldest message that is not settled was stored, or the outbox was opened, if that came
	// later. Zero: there is none.
	OldestUnsettled time.Time `json:"oldest_unsettled,omitzero"`
	// Destinations are those that have streams, in the order of their names.
	Destinations []DestinationStats `json:"destinations,omitempty"`
}

// DestinationStats describes what an outbox holds for one destination.
type DestinationStats struct {
	Name            string             `json:"name"` // the address that the messages go to
	Pending         uint64             `json:"pending"`
	Bytes           int64              `json:"bytes"`
	OldestUnsettled time.Time          `json:"oldest_unsettled,omitzero"`
	Topics          []OutboxTopicStats `json:"topics,omitempty"` // in the order of their names
}

// OutboxTopicStats describes what an outbox holds of one topic.
type OutboxTopicStats struct {
	Name            string    `json:"name"`
	Pending         uint64    `json:"pending"`
	Bytes           int64     `json:"bytes"`
	OldestUnsettled time.Time `json:"oldest_unsettled,omitzero"`
}
