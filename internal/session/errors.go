package session

import (
	"errors"
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// PeerError is a refusal by the peer: of a message, of a stream, or of the whole connection.
type PeerError struct {
	Code   wire.Code
	Reason string // the peer's words: quote them before they are logged
}

func (e *PeerError) Error() string {
	return fmt.Sprintf("session: peer refused: %s: %.200q%s", e.Code, e.Reason, advice[e.Code])
}

// advice says what the refused side can do.
var advice = map[wire.Code]string{
	wire.Code_CODE_UNAUTHENTICATED: "; check AckedConfig.Token, and the client certificate in ClientTLS",
	wire.Code_CODE_FORBIDDEN:       "; the receiver's AckedConfig.Authorize has to allow this principal",
	wire.Code_CODE_FENCED:          "; a copy of this publisher runs elsewhere, or its outbox was opened under another principal",
}

// ErrTopicGone is matched by a PeerError of a topic whose last subscription ended.
var ErrTopicGone = errors.New("session: topic is gone")

// ErrUnauthenticated is matched by a PeerError of a listener that does not know this side.
var ErrUnauthenticated = errors.New("session: not authenticated")

// ErrForbidden is matched by a PeerError of a topic that this side may not publish to.
var ErrForbidden = errors.New("session: not allowed")

// Is matches the sentinel of the code.
func (e *PeerError) Is(target error) bool {
	switch e.Code {
	case wire.Code_CODE_TOPIC_GONE:
		return target == ErrTopicGone
	case wire.Code_CODE_UNAUTHENTICATED:
		return target == ErrUnauthenticated
	case wire.Code_CODE_FORBIDDEN:
		return target == ErrForbidden
	}
	return false
}

// Refused is a message that the receiver settled without handling it.
type Refused struct {
	Topic    string
	Sequence uint64
	Message  []byte // as it was encoded; the receiver of this value owns it
	Err      *PeerError
}

// ErrSilent means that nothing was heard from the peer for too long, though it was pinged.
var ErrSilent = errors.New("session: peer is silent")

// ErrEnded is the cause of a stream that its own side ended.
var ErrEnded = errors.New("session: stream ended")
