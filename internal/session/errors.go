package session

import (
	"errors"
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Sentinels that a PeerError matches, by what the peer refused. The peer sends a code for each of them, and further
// codes, such as for another version of the protocol, match none.
var (
	// ErrUnauthenticated refuses the connection: the listener does not accept this side's token or certificate.
	ErrUnauthenticated = errors.New("buffstreams: not authenticated")
	// ErrForbidden refuses a topic: this side's principal may not publish to it.
	ErrForbidden = errors.New("buffstreams: not allowed")
	// ErrFenced refuses a stream: the listener knows a newer process with this publisher's id, or the id belongs to
	// another principal.
	ErrFenced = errors.New("buffstreams: publisher is fenced")
	// ErrTopicGone refuses a topic whose last subscription ended.
	ErrTopicGone = errors.New("buffstreams: topic is gone")
	// ErrLimit refuses a message that is larger than the receiver accepts, or a connection that the receiver cannot
	// serve now.
	ErrLimit = errors.New("buffstreams: over a limit of the receiver")
	// ErrUndecodable refuses a message that the receiver's Unmarshaler did not understand.
	ErrUndecodable = errors.New("buffstreams: message cannot be decoded")
	// ErrHandlingFailed refuses a message that the receiver's handlers did not acknowledge in as many attempts, or as
	// much time, as its configuration allows.
	ErrHandlingFailed = errors.New("buffstreams: handling failed for good")
	// ErrNeverSent refuses a stream at this side: the receiver claims to have messages of it that this side has never
	// sent, and would drop what is sent under their sequences.
	ErrNeverSent = errors.New("buffstreams: the receiver claims what was never sent")
	// ErrCopied refuses a stream at this side: another process uses, or has used, the same identity. It runs on a copy
	// of this side's durable state, or this side runs on one.
	ErrCopied = errors.New("buffstreams: the publisher's state was copied or restored")
)

// codeNeverSent is the code of ErrNeverSent. It never travels: it is this side that refuses.
const codeNeverSent wire.Code = -1

// codeCopied is the code of ErrCopied, which never travels either.
const codeCopied wire.Code = -2

// refusals says what each code means: its sentinel, its words for people, and what the refused side can do about it.
var refusals = map[wire.Code]struct {
	sentinel     error
	text, advice string
}{
	wire.Code_CODE_PROTOCOL: {nil, "protocol violation", ""},
	wire.Code_CODE_VERSION:  {nil, "protocol version is not supported", ""},
	wire.Code_CODE_UNAUTHENTICATED: {ErrUnauthenticated, "not authenticated",
		"check AckedConfig.Token, and the client certificate in ClientTLS"},
	wire.Code_CODE_FORBIDDEN: {ErrForbidden, "not allowed",
		"the receiver's AckedConfig.Authorize has to allow this principal"},
	wire.Code_CODE_FENCED: {ErrFenced, "publisher is fenced",
		"a copy of this publisher runs elsewhere, or its outbox was opened under another principal"},
	wire.Code_CODE_TOPIC_GONE:  {ErrTopicGone, "topic is gone", ""},
	wire.Code_CODE_LIMIT:       {ErrLimit, "over a limit of the receiver", ""},
	wire.Code_CODE_UNDECODABLE: {ErrUndecodable, "message cannot be decoded", ""},
	wire.Code_CODE_FAILED:      {ErrHandlingFailed, "handling failed for good", ""},
	wire.Code_CODE_DRAINING:    {nil, "the listener closes", ""},
	codeNeverSent: {ErrNeverSent, "",
		"this side's state is a copy, or older than what it sent once; or the receiver has mixed up its own"},
	codeCopied: {ErrCopied, "", "this side's state is a copy, or was restored, or was copied"},
}

// PeerError is a refusal by the peer: of a message, of a stream, or of the whole connection. errors.Is tells which, by
// the sentinels of this package.
type PeerError struct {
	// Reason is what the peer says of it, for people; it can be empty. The peer chooses its bytes: quote them before
	// they are logged, as Error does.
	Reason string

	code wire.Code
}

// NewPeerError returns the refusal with a code of the protocol.
func NewPeerError(code wire.Code, reason string) *PeerError {
	return &PeerError{code: code, Reason: reason}
}

// CodeOf returns the code that stands for e on the wire. It is no method, as users of PeerError cannot name its type.
func CodeOf(e *PeerError) wire.Code { return e.code }

func (e *PeerError) Error() string {
	r, known := refusals[e.code]
	if !known {
		r.text = fmt.Sprintf("code %d", e.code)
	}
	text := "the peer refused: " + r.text
	switch e.code {
	case codeNeverSent:
		text = "the peer claims what was never sent"
	case codeCopied:
		text = "the peer has heard of this stream from another process that has the same identity"
	}
	if e.Reason != "" {
		text += fmt.Sprintf(": %.200q", e.Reason)
	}
	if r.advice != "" {
		text += "; " + r.advice
	}
	return text
}

// Is reports whether target is the sentinel of the refusal.
func (e *PeerError) Is(target error) bool {
	sentinel := refusals[e.code].sentinel
	return sentinel != nil && target == sentinel
}

// ErrSilent means that nothing was heard from the peer for too long, though it was pinged.
var ErrSilent = errors.New("buffstreams: the peer is silent")

// ErrEnded is the cause of a stream that its own side ended.
var ErrEnded = errors.New("buffstreams: stream ended")
