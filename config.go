// Package buffstreams is a Watermill Pub/Sub over TCP without a broker: a Publisher dials the Subscriber's address and
// streams length-prefixed messages to it.
package buffstreams

import (
	"reflect"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Confirm says when Publish returns.
type Confirm int

// The levels of confirmation. At every level the sending side keeps a message until it was handled.
const (
	// ConfirmReceived: the subscriber's process holds the messages. It is the default.
	ConfirmReceived Confirm = iota
	// ConfirmEnqueued: the send window took the messages. Errors that come later show in Flush, Close and OnFailure.
	ConfirmEnqueued
	// ConfirmHandled: a handler of every consumer group has acked the messages.
	ConfirmHandled
)

// Wire is the protocol spoken with the peer. It is never guessed.
type Wire int

// The wires.
const (
	// WireAcked is the acked protocol of docs/protocol.md.
	WireAcked Wire = iota
	// WireBuffStreams is the plain protocol of BuffStreams: no acks, no topic names.
	WireBuffStreams
)

// NoSleep as NackResendSleep redelivers at once.
const NoSleep time.Duration = -1

// Defaults of the configurations.
const (
	DefaultPublishTimeout  = 30 * time.Second
	DefaultCloseTimeout    = 5 * time.Second
	DefaultNackResendSleep = 100 * time.Millisecond
	DefaultNackResendCap   = 10 * time.Second
)

// PublisherConfig configures a Publisher. The zero value publishes to address topics.
type PublisherConfig struct {
	// Manager owns the connections. Publishers and subscribers that share one share them. Nil means a private one, made
	// from ManagerConfig and closed with the Publisher.
	Manager       *Manager
	ManagerConfig ManagerConfig

	// Marshaler encodes messages. Nil means EnvelopeMarshaler, or RawMarshaler on the plain wire.
	Marshaler Marshaler
	// Resolver finds the routes of topics that name no address. Nil means that every topic must name one.
	Resolver route.Resolver
	// Confirm says when Publish returns. It is not used with an Outbox.
	Confirm Confirm
	// Outbox keeps messages on disk until they were handled: Publish returns when they are fsynced there, and they are
	// delivered in the background, also after a restart. Publishers may share one; it is not closed with them. Nil
	// means that messages are kept in memory; an interface that holds a nil pointer is an error.
	Outbox store.Outbox
	// Wire is the protocol. The plain one knows only ConfirmEnqueued.
	Wire Wire
	// MaxMessageSize is the limit of one encoded message in bytes. 0 means the Manager's limit on the acked wire, which
	// is also the most that it may be there; and 4096 on the plain one, where it must equal the peer's.
	MaxMessageSize int
	// PublishTimeout bounds how long Publish waits; 0 means 30 s, negative for ever.
	PublishTimeout time.Duration
	// PublishContext makes the context of a call's first message bound the wait as well. Mind that middlewares such as
	// Timeout leave a cancelled context on messages that others publish after them.
	PublishContext bool
	// CloseTimeout bounds how long Close waits for what is on its way; 0 means 5 s.
	CloseTimeout time.Duration
	// TraceMessages logs at Trace what Publish says of each message. It costs a line for each, even one that the logger
	// drops.
	TraceMessages bool
	// Ephemeral is for a publisher of replies: a message whose topic is gone, or whose peer, or a subscription there,
	// is absent for a second, is dropped, counted, logged and given to OnFailure, and is no error of Publish. It cannot
	// be set with an Outbox.
	Ephemeral bool
	// OnFailure is called for each message that the subscriber's side refused for good, as soon as that is known; err
	// is a *PeerError, or what the plain wire ran into. An Outbox keeps a message until OnFailure has returned; without
	// OnFailure it keeps it, and Drain does not return nil. With a shared Manager it sees the refusals of all its
	// publishers to the addresses that this one uses. On the plain wire the first Publisher of a Manager that connects
	// to an address sees what fails there; Flush and Close tell the others. It must not block for long.
	OnFailure func(topic string, encoded []byte, err error)
}

func (c *PublisherConfig) setDefaults() {
	if c.Marshaler == nil {
		c.Marshaler = EnvelopeMarshaler{}
		if c.Wire == WireBuffStreams {
			c.Marshaler = RawMarshaler{}
		}
	}
	switch {
	case c.PublishTimeout == 0:
		c.PublishTimeout = DefaultPublishTimeout
	case c.PublishTimeout < 0:
		c.PublishTimeout = 0 // no bound, from here on
	}
	if c.CloseTimeout == 0 {
		c.CloseTimeout = DefaultCloseTimeout
	}
}

// Validate names the first field that cannot work.
func (c PublisherConfig) Validate() error {
	switch {
	case c.Confirm < ConfirmReceived || c.Confirm > ConfirmHandled:
		return configError("PublisherConfig.Confirm", "%d is not a level", c.Confirm)
	case c.Wire != WireAcked && c.Wire != WireBuffStreams:
		return configError("PublisherConfig.Wire", "%d is not a wire", c.Wire)
	case c.Wire == WireBuffStreams && c.Confirm != ConfirmEnqueued:
		return configError("PublisherConfig.Confirm", "the plain wire has no acks: only ConfirmEnqueued is possible")
	case c.Outbox != nil && c.Wire != WireAcked:
		return configError("PublisherConfig.Outbox", "the plain wire has no acks: an outbox would never know what was delivered")
	case c.Outbox != nil && c.Confirm != ConfirmReceived:
		return configError("PublisherConfig.Confirm", "an Outbox confirms when a message is on disk; leave Confirm unset")
	case c.Ephemeral && c.Outbox != nil:
		return configError("PublisherConfig.Ephemeral", "an Outbox keeps messages for peers that are absent; leave one of both unset")
	case c.Ephemeral && c.Wire != WireAcked:
		return configError("PublisherConfig.Ephemeral", "peers on the plain wire do not tell what topics they have")
	case isNilPointer(c.Outbox):
		return configError("PublisherConfig.Outbox", "it holds a nil %T; for no outbox leave it unset", c.Outbox)
	case c.MaxMessageSize < 0:
		return configError("PublisherConfig.MaxMessageSize", "%d is negative", c.MaxMessageSize)
	case c.CloseTimeout < 0:
		return configError("PublisherConfig.CloseTimeout", "%v is negative", c.CloseTimeout)
	}
	return nil
}

// isNilPointer reports whether o is not nil but holds a nil pointer.
func isNilPointer(o store.Outbox) bool {
	v := reflect.ValueOf(o)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// SubscriberConfig configures a Subscriber. The zero value listens at address topics.
type SubscriberConfig struct {
	// Manager owns the listeners, which then outlive the Subscriber. Nil means a private one, made from ManagerConfig
	// and closed with the Subscriber.
	Manager       *Manager
	ManagerConfig ManagerConfig

	// Unmarshaler decodes messages. Nil means EnvelopeMarshaler, or RawMarshaler on the plain wire.
	Unmarshaler Unmarshaler
	// ListenAddress is where logical topics are listened for.
	ListenAddress string
	// ConsumerGroup is the group that all subscriptions of this Subscriber belong to: they share the messages of a
	// topic with the group's other members. Empty means that each subscription gets every message that arrives while it
	// lives; what such a one had not acked when it ended is only kept if no other and no group is there: see
	// docs/design.md.
	ConsumerGroup string
	// Ephemeral makes topics end with their last subscription, as the reply topic of a request should: what is pending
	// then is dropped, its publishers get ErrTopicGone at once, and both ends forget the topic after a while. A topic
	// that a Subscriber without Ephemeral uses as well does not end so.
	Ephemeral bool
	// Ready holds back every topic of the Manager, a shared one too, as ManagerConfig.Ready does, until it is closed or
	// the Subscriber is.
	Ready <-chan struct{}
	// Wire is the protocol. On the plain one every address has one topic, with an empty name.
	Wire Wire
	// MaxMessageSize is the limit of one message in bytes on the plain wire, where it must equal the peer's; 0 means
	// 4096. On the acked wire the Manager has it.
	MaxMessageSize int
	// MaxInFlight is how many messages of a subscription may be unacked at a time; 0 means 1. With more than one,
	// handlers run concurrently; messages are still emitted in order.
	MaxInFlight int
	// Key keeps messages in order where MaxInFlight is above 1: of those with the same key, one at a time is handled,
	// in order, in the whole consumer group; one that is stuck or nacked holds up no other key. All members of a group
	// must have the same. Nil means that order is not kept beyond the order of emission. It is called on the goroutine
	// of its subscription, with no lock held. A panic means that the message cannot be decoded.
	Key func(*message.Message) string
	// NackResendSleep is the wait before a nacked message is emitted again; it doubles with each further Nack, up to
	// NackResendCap. 0 means 100 ms and 10 s, NoSleep none.
	NackResendSleep, NackResendCap time.Duration
	// AckWaitTimeout is how long a handler may take before its message's context is cancelled and the message is
	// emitted again; 0 means for ever. The time begins with the handler, not while up to four decorators hold messages
	// back until it is through with those before. So of handlers that were not seen to work side by side, the last four
	// wait for one another.
	AckWaitTimeout time.Duration
	// CloseTimeout bounds how long closing waits for handlers and callbacks; 0 means 5 s. What they have then goes
	// back. It bounds too how long a subscription whose context is cancelled goes on with messages whose publishers are
	// gone.
	CloseTimeout time.Duration
	// MaxAttempts is how often a message is delivered before it has failed for good, MaxAge how long after it was
	// received its last redelivery may be; 0 means without limit.
	MaxAttempts int
	MaxAge      time.Duration
	// DeadLetter gets the messages that failed for good, and those that cannot be decoded, at DeadLetterTopic, with the
	// metadata keys of Watermill's poison queue. They then count as handled. While it fails, they are kept and tried
	// again.
	DeadLetter      message.Publisher
	DeadLetterTopic string
	// OnFailure is called for each message that failed for good, or cannot be decoded, and has no DeadLetter to go to;
	// when it returns, the message is rejected to its publisher. A message that cannot be decoded has its raw bytes as
	// payload. It and DeadLetter are called on a goroutine of their own, with no lock held, and may block: the message
	// counts in MaxInFlight meanwhile.
	OnFailure func(msg *message.Message, reason error)
	// TraceMessages logs at Trace each message that is delivered, and how that ended. It costs two lines for each, even
	// ones that the logger drops.
	TraceMessages bool
	// EmitUndecodable emits a message that Unmarshaler refuses with its raw bytes as payload and the reason in its
	// metadata (UndecodableKey), so that middlewares such as PoisonQueue see it; it comes before DeadLetter.
	EmitUndecodable bool
}

// UndecodableKey is the metadata key of the reason why a message could not be decoded.
const UndecodableKey = "buffstreams_undecodable"

func (c *SubscriberConfig) setDefaults() {
	if c.Unmarshaler == nil {
		c.Unmarshaler = EnvelopeMarshaler{}
		if c.Wire == WireBuffStreams {
			c.Unmarshaler = RawMarshaler{}
		}
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 1
	}
	if c.NackResendSleep == 0 {
		c.NackResendSleep = DefaultNackResendSleep
	}
	if c.NackResendCap == 0 {
		c.NackResendCap = max(DefaultNackResendCap, c.NackResendSleep)
	}
	if c.CloseTimeout == 0 {
		c.CloseTimeout = DefaultCloseTimeout
	}
}

// Validate names the first field that cannot work.
func (c SubscriberConfig) Validate() error {
	switch {
	case c.Wire != WireAcked && c.Wire != WireBuffStreams:
		return configError("SubscriberConfig.Wire", "%d is not a wire", c.Wire)
	case c.MaxInFlight < 0:
		return configError("SubscriberConfig.MaxInFlight", "%d is negative", c.MaxInFlight)
	case c.MaxMessageSize < 0:
		return configError("SubscriberConfig.MaxMessageSize", "%d is negative", c.MaxMessageSize)
	case c.NackResendSleep < 0 && c.NackResendSleep != NoSleep:
		return configError("SubscriberConfig.NackResendSleep", "%v is negative; use NoSleep for none", c.NackResendSleep)
	case c.NackResendCap < 0 || c.NackResendCap != 0 && c.NackResendCap < c.NackResendSleep:
		return configError("SubscriberConfig.NackResendCap", "%v is less than NackResendSleep", c.NackResendCap)
	case c.MaxAttempts < 0:
		return configError("SubscriberConfig.MaxAttempts", "%d is negative", c.MaxAttempts)
	case c.MaxAge < 0:
		return configError("SubscriberConfig.MaxAge", "%v is negative", c.MaxAge)
	case (c.DeadLetter == nil) != (c.DeadLetterTopic == ""):
		return configError("SubscriberConfig.DeadLetterTopic", "DeadLetter and DeadLetterTopic need each other")
	case c.AckWaitTimeout < 0:
		return configError("SubscriberConfig.AckWaitTimeout", "%v is negative", c.AckWaitTimeout)
	case c.CloseTimeout < 0:
		return configError("SubscriberConfig.CloseTimeout", "%v is negative", c.CloseTimeout)
	}
	if c.ListenAddress != "" {
		if _, err := parseAddress(c.ListenAddress); err != nil {
			return configError("SubscriberConfig.ListenAddress", "%w", err)
		}
	}
	return nil
}

var (
	_ message.Publisher            = (*Publisher)(nil)
	_ message.Subscriber           = (*Subscriber)(nil)
	_ message.SubscribeInitializer = (*Subscriber)(nil)
)
