package driver

import (
	"time"
)

// Confirm says when Publish returns nil.
type Confirm string

// The levels of confirmation.
const (
	// ConfirmReceived: the engine, or the subscriber's process where there is no server, has the message. It is the
	// default.
	ConfirmReceived Confirm = "received"
	// ConfirmEnqueued: the send window of this process has it.
	ConfirmEnqueued Confirm = "enqueued"
	// ConfirmHandled: a handler of every group has acked it.
	ConfirmHandled Confirm = "handled"
)

// Start says where a new group begins.
type Start string

// The places where a new group begins.
const (
	// StartAll: with the oldest message that the engine has. It is the default of named groups.
	StartAll Start = "all"
	// StartNew: with what is published after its first Subscribe.
	StartNew Start = "new"
)

// Settings are what the common URL parameters say. They mean the same with every engine.
type Settings struct {
	// Group is the consumer group: its members share the messages of a topic, each group gets them all. Empty means
	// that each subscription gets what is published while it lives.
	Group string
	// Start says where a new group begins.
	Start Start
	// Key is the metadata key of the order key: of the messages that share its value, one at a time is handled, in
	// order.
	Key string
	// Members is 1 where the application promises that each group has one member, 0 otherwise.
	Members int
	// MaxInFlight is how many messages of a subscription may be unacked; 1 is the default.
	MaxInFlight int
	// Attempts is how often a subscription delivers a message before it goes to DeadLetter. 0 means without limit.
	Attempts int
	// DeadLetter is the topic of the same engine for messages whose attempts are exhausted.
	DeadLetter string
	// NackDelay is the wait before a nacked message is delivered again; it doubles up to NackDelayMax.
	NackDelay, NackDelayMax time.Duration
	// Batch is how many messages one request to the engine may carry. 0 means the driver's choice.
	Batch int
	// Confirm says when Publish returns.
	Confirm Confirm
	// RedeliverAfter is how long a member that died keeps the messages that it had in hand.
	RedeliverAfter time.Duration
	// PublishTimeout bounds a Publish call, CloseTimeout how long Close waits for handlers.
	PublishTimeout, CloseTimeout time.Duration
	// MaxMessageSize is the limit of payload and metadata of a message in bytes. 0 means the engine's.
	MaxMessageSize int
}

// Defaults of Settings.
const (
	DefaultNackDelay      = 100 * time.Millisecond
	DefaultNackDelayMax   = 10 * time.Second
	DefaultRedeliverAfter = 30 * time.Second
	DefaultPublishTimeout = 30 * time.Second
	DefaultCloseTimeout   = 5 * time.Second
)

// Common are the parameters that every engine knows, in the order of the documents.
func Common() []Parameter {
	return []Parameter{
		{"group", "consumer group; without one each subscription gets what is published while it lives"},
		{"start", "where a new group begins: all (default) or new"},
		{"key", "metadata key of the order key: messages that share its value are handled one at a time, in order"},
		{"members", "1: the application promises that each group has one member"},
		{"max_in_flight", "messages of a subscription that may be unacked; default 1"},
		{"attempts", "deliveries by a subscription before a message goes to dead_letter; needs dead_letter"},
		{"dead_letter", "topic of the same engine for messages whose attempts are exhausted"},
		{"nack_delay", "wait before a nacked message comes again, doubled each time; default 100ms, 0 none"},
		{"nack_delay_max", "the most that nack_delay grows to; default 10s"},
		{"batch", "messages that one request to the engine may carry"},
		{"confirm", "when Publish returns: enqueued, received (default) or handled"},
		{"redeliver_after", "how long a member that died keeps its messages; default 30s"},
		{"publish_timeout", "bound of a Publish call; default 30s"},
		{"close_timeout", "how long Close waits for handlers; default 5s"},
		{"max_message_size", "limit of payload and metadata in bytes; default the engine's"},
	}
}

// ParseSettings reads the common parameters and removes them from p.
func ParseSettings(p *Params) Settings {
	s := Settings{
		Group: p.String("group", ""), Start: Start(p.OneOf("start", string(StartAll), string(StartNew))),
		Key: p.String("key", ""), Members: p.Int("members", 0, 0, 1), MaxInFlight: p.Int("max_in_flight", 1, 1, 1<<20),
		Attempts: p.Int("attempts", 0, 1, 1<<30), DeadLetter: p.String("dead_letter", ""),
		NackDelay: p.Duration("nack_delay", DefaultNackDelay), NackDelayMax: p.Duration("nack_delay_max", 0),
		Batch:          p.Int("batch", 0, 1, 1<<20),
		Confirm:        Confirm(p.OneOf("confirm", string(ConfirmReceived), string(ConfirmEnqueued), string(ConfirmHandled))),
		RedeliverAfter: p.Duration("redeliver_after", DefaultRedeliverAfter),
		PublishTimeout: p.Duration("publish_timeout", DefaultPublishTimeout),
		CloseTimeout:   p.Duration("close_timeout", DefaultCloseTimeout),
		MaxMessageSize: p.Int("max_message_size", 0, 1, 1<<30),
	}
	if s.NackDelayMax == 0 {
		s.NackDelayMax = max(DefaultNackDelayMax, s.NackDelay)
	}
	s.check(p)
	return s
}

func (s *Settings) check(p *Params) {
	switch {
	case s.Attempts > 0 && s.DeadLetter == "":
		p.Fail("attempts", "needs dead_letter, the topic for messages whose attempts are exhausted")
	case s.Attempts == 0 && s.DeadLetter != "":
		p.Fail("dead_letter", "needs attempts, the number of deliveries before a message goes there")
	case s.NackDelayMax < s.NackDelay:
		p.Fail("nack_delay_max", "is less than nack_delay")
	case s.RedeliverAfter < time.Second:
		p.Fail("redeliver_after", "must be 1s at least")
	case s.PublishTimeout <= 0:
		p.Fail("publish_timeout", "must be positive")
	}
}
