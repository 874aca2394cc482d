package hooks

import "time"

// Sent is what one flush has written to a connection.
type Sent struct {
	Address  string
	Messages int // those that were sent before included
	Bytes    int // of the messages, with their tags and lengths
}

// SentHook is told of messages that were written.
type SentHook interface{ OnSent(e Sent) }

// Received is the messages of one frame that a listener has taken.
type Received struct {
	Listener string
	Topic    string
	Messages int
	Bytes    int // of the messages, with their tags and lengths
}

// ReceivedHook is told of messages that arrive.
type ReceivedHook interface{ OnReceived(e Received) }

// Duplicate is messages of one frame that a listener has dropped, as it had received them before.
type Duplicate struct {
	Listener string
	Topic    string
	Messages int
}

// DuplicateHook is told of duplicates that were dropped.
type DuplicateHook interface{ OnDuplicate(e Duplicate) }

// Settled is a run of messages of which a Publisher's side has learnt that they are settled: handled by every group, or
// refused for good.
type Settled struct {
	Address  string
	Topic    string
	Messages int
	// Bytes is about the size of the messages, with their tags and lengths; 0 where an Outbox keeps them.
	Bytes int
	// Age is the time since the first of them was published; 0: it is not known, as where an Outbox keeps them.
	Age time.Duration
}

// SettledHook is told of messages that publishers need no longer keep.
type SettledHook interface{ OnSettled(e Settled) }

// Handled is a run of messages that a subscription has settled, as its handlers have acked them, or the dead letters
// have taken them.
type Handled struct {
	Topic    string // on the wire, as everywhere here
	Group    string // empty for a subscription without a group
	Messages int
	Bytes    int
	Age      time.Duration // since the oldest of them was received
}

// HandledHook is told of messages that were acked.
type HandledHook interface{ OnHandled(e Handled) }

// WindowFull is a Publish call that had to wait for room, as the window of its topic or the memory of its Manager was
// full.
type WindowFull struct {
	Address string
	Topic   string
	Wait    time.Duration
	Err     error // nil: it got room
}

// WindowFullHook is told of Publish calls that waited for room, at the end of the wait.
type WindowFullHook interface{ OnWindowFull(e WindowFull) }

// Redelivered is a message that is delivered again, as its delivery ended with a Nack or in no time.
type Redelivered struct {
	Topic   string
	Group   string
	Attempt int           // deliveries that have ended
	Delay   time.Duration // before the next one
}

// RedeliveredHook is told of messages that are delivered again.
type RedeliveredHook interface{ OnRedelivered(e Redelivered) }

// DeadLettered is a message that has failed for good at a subscriber.
type DeadLettered struct {
	Topic  string
	Group  string
	To     string // DeadLetterTopic; empty: the message was rejected to its publisher
	Reason error
}

// DeadLetteredHook is told of messages that subscribers give up.
type DeadLetteredHook interface{ OnDeadLettered(e DeadLettered) }

// Rejected is a message that a Publisher's side has learnt to be refused for good.
type Rejected struct {
	Address string
	Topic   string
	Err     error
}

// RejectedHook is told of messages that peers refuse.
type RejectedHook interface{ OnRejected(e Rejected) }

// OutboxAppended is a call of Append of an outbox.
type OutboxAppended struct {
	Outbox      string // its directory
	Destination string
	Topic       string
	Messages    int
	Bytes       int
	Took        time.Duration
	Err         error // nil: the messages are durable
}

// OutboxAppendedHook is told of calls of Append.
type OutboxAppendedHook interface{ OnOutboxAppended(e OutboxAppended) }

// OutboxSynced is a write of an outbox to the disk, with its fsync, which calls of Append share.
type OutboxSynced struct {
	Outbox  string
	Appends int
	Bytes   int
	Took    time.Duration
	Err     error // it stops the outbox
}

// OutboxSyncedHook is told of writes to the disk.
type OutboxSyncedHook interface{ OnOutboxSynced(e OutboxSynced) }

// OutboxRecovered is an outbox that was opened.
type OutboxRecovered struct {
	Outbox   string
	Messages uint64 // that are pending
	Bytes    int64  // what they count against the quota
	Took     time.Duration
	Err      error
}

// OutboxRecoveredHook is told of outboxes that are opened.
type OutboxRecoveredHook interface{ OnOutboxRecovered(e OutboxRecovered) }
