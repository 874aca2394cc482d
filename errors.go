package buffstreams

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/receiver"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// provider is the value of the log field of that name.
const provider = netio.Provider

// Sentinels for states. Compare with errors.Is.
var (
	// ErrPublisherClosed is returned by Publish after Close, and by calls that Close cut short.
	ErrPublisherClosed = errors.New("buffstreams: publisher is closed")
	// ErrSubscriberClosed is returned by Subscribe after Close.
	ErrSubscriberClosed = errors.New("buffstreams: subscriber is closed")
	// ErrTimeout means that messages did not reach their confirm level within PublishTimeout.
	ErrTimeout = sender.ErrTimeout
	// ErrUnauthenticated is matched by the *PeerError of a listener that did not let this side in: its token or
	// certificate was refused. What was published stays in the window or outbox, and is sent when it is let in.
	ErrUnauthenticated = session.ErrUnauthenticated
	// ErrForbidden is matched by the *PeerError of a topic that this side may not publish to; what was published to it
	// goes to OnFailure, or stays in the outbox. It is matched by the error of Subscribe too, where
	// AckedConfig.Authorize refuses it.
	ErrForbidden = session.ErrForbidden
	// ErrFenced is matched by the *PeerError of a publisher whose place another process has taken: a copy of it runs
	// elsewhere, or its outbox was opened under another principal.
	ErrFenced = session.ErrFenced
	// ErrNeverSent is matched by the *PeerError of a topic whose subscriber's side claims to have messages that this
	// side never sent, and would drop those: this side's outbox is a copy or was restored from a backup, or the other
	// side has mixed up its memory. What was published to it goes to OnFailure, or stays in the outbox.
	ErrNeverSent = session.ErrNeverSent
	// ErrTopicGone is matched by the *PeerError of an ephemeral topic whose last subscription ended: its messages
	// were dropped.
	ErrTopicGone = session.ErrTopicGone
	// ErrLimit is matched by the *PeerError of a message that is larger than the subscriber's side accepts, and of a
	// connection that it cannot serve now: it has too many, or its Authenticate hook cannot decide.
	ErrLimit = session.ErrLimit
	// ErrUndecodable is matched by the *PeerError of a message that the subscriber's Unmarshaler refused, and there by
	// the *UndecodableError.
	ErrUndecodable = session.ErrUndecodable
	// ErrHandlingFailed is matched by the *PeerError of a message that the subscriber gave up, after MaxAttempts or
	// MaxAge.
	ErrHandlingFailed = session.ErrHandlingFailed
	// ErrUnavailable is for Authenticate and Authorize hooks to return, wrapped or not, when they cannot decide now:
	// the peer is told to come back, not that it is refused.
	ErrUnavailable = receiver.ErrUnavailable
	// ErrDialDenied is matched by the *pool.DialDeniedError of an address that ManagerConfig.DialAllow does not allow.
	ErrDialDenied = pool.ErrDialDenied
	// ErrInsecureAddress is matched by every *InsecureAddressError.
	ErrInsecureAddress = netio.ErrInsecureAddress
	// ErrInsecureToken is matched by every *InsecureTokenError.
	ErrInsecureToken = sender.ErrInsecureToken
	// ErrManagerClosed is returned by calls that need a Manager which was closed.
	ErrManagerClosed = errors.New("buffstreams: manager is closed")
	// ErrTooLarge is matched by every *TooLargeError.
	ErrTooLarge = errors.New("buffstreams: message too large")
	// ErrUndelivered is matched by every *UndeliveredError.
	ErrUndelivered = errors.New("buffstreams: messages were not delivered")
	// ErrBadTopic means that a topic is neither an address nor a name that the configuration can resolve.
	ErrBadTopic = errors.New("buffstreams: topic cannot be resolved")
)

// PeerError is a refusal by the subscriber's side: of a message, of a topic, or of the connection. The sentinels above
// say which: compare with errors.Is. Its field Reason, a string, is what that side says of it, and can hold any bytes.
type PeerError = session.PeerError

// TimeoutError is an ErrTimeout that says what was waited for. Its field Cause, an error, is why there is no
// connection, or what the messages of the topic wait for: room in a window or in MemoryLimit, credit of the
// subscriber's side (which says what it lacks), or an ack.
type TimeoutError = sender.TimeoutError

// InsecureAddressError refuses to listen without TLS at an address that other machines can reach, where
// AckedConfig.Insecure is not set. Its field Address, a string, is that address.
type InsecureAddressError = netio.InsecureAddressError

// InsecureTokenError refuses to send AckedConfig.Token where others could read it. Its field Address, a string, is
// where it would have gone.
type InsecureTokenError = sender.InsecureTokenError

// PublishError says what became of the messages of one Publish call. Those in neither list reached their confirm level.
type PublishError struct {
	Topic string
	// Peer is the address that they were meant for; empty if it came to none.
	Peer string
	// NotSent will not be sent: publishing them again duplicates nothing.
	NotSent []*message.Message
	// Unknown are in the window and go on being sent, and may have arrived: publishing them again can duplicate them.
	// Those that the peer refused are among them, and come to OnFailure.
	Unknown []*message.Message
	// Err is why: ErrTimeout, a *PeerError and so on; of several addresses, all that they gave, joined.
	Err error
}

func (e *PublishError) Error() string {
	at := ""
	if e.Peer != "" {
		at = fmt.Sprintf(" at %.200q", e.Peer)
	}
	return fmt.Sprintf("buffstreams: publishing to %.200q%s: %v (%d not sent, %d unconfirmed)",
		e.Topic, at, e.Err, len(e.NotSent), len(e.Unknown))
}

// Unwrap returns Err.
func (e *PublishError) Unwrap() error { return e.Err }

// TooLargeError says that a message, as it was encoded, is over the limit. Nothing of the call was sent, but, on the
// plain wire, the messages before it, and, where a route has several addresses, those for the others: see PublishError.
type TooLargeError struct {
	UUID        string
	Size, Limit int // bytes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%v: message %.100q is %d bytes when encoded, the limit is %d; raise MaxMessageSize at both ends or send less",
		ErrTooLarge, e.UUID, e.Size, e.Limit)
}

// Is matches ErrTooLarge.
func (e *TooLargeError) Is(target error) bool { return target == ErrTooLarge }

// UndeliveredError says which messages a Close left undelivered: no receiver, outbox or Manager that lives on is known
// to hold them. OnFailure gets those whose Publish had returned nil.
type UndeliveredError struct {
	Count int // of messages, in all
	Parts []Undelivered
}

// Undelivered is a part of an UndeliveredError.
type Undelivered struct {
	Topic string // the name that travels on the wire
	Peer  string // the address that the messages were meant for; empty for those that were received here
	Count int
}

func (e *UndeliveredError) Error() string {
	var parts strings.Builder
	const most = 3 // parts that are named
	for i, p := range e.Parts {
		switch {
		case i == most:
			fmt.Fprintf(&parts, ", and %d more topics", len(e.Parts)-most)
		case i < most && p.Peer == "":
			fmt.Fprintf(&parts, ", %d of topic %.100q", p.Count, p.Topic)
		case i < most:
			fmt.Fprintf(&parts, ", %d of topic %.100q for %s", p.Count, p.Topic, p.Peer)
		}
	}
	return fmt.Sprintf("%v: %d at close%s", ErrUndelivered, e.Count, &parts)
}

// add counts messages of a topic for a peer.
func (e *UndeliveredError) add(topic, peer string, count int) {
	if count == 0 {
		return
	}
	e.Count += count
	for i := range e.Parts {
		if p := &e.Parts[i]; p.Topic == topic && p.Peer == peer {
			p.Count += count
			return
		}
	}
	e.Parts = append(e.Parts, Undelivered{Topic: topic, Peer: peer, Count: count})
}

// orNil is e as an error, or nil if it counts nothing.
func (e *UndeliveredError) orNil() error {
	if e.Count == 0 {
		return nil
	}
	return e
}

// Is matches ErrUndelivered.
func (e *UndeliveredError) Is(target error) bool { return target == ErrUndelivered }

func configError(field, format string, args ...any) error {
	return fmt.Errorf("buffstreams: %s: %w", field, fmt.Errorf(format, args...))
}
