package session

import (
	"errors"
	"fmt"

	wire "github.com/buffstreams/watermill-buffstreams/proto"
)

// PeerError is a refusal by the peer: of a message, of a stream, or of the whole connection.
type PeerError struct {
	Code   wire.Code
	Reason string // the peer's words: quote them before they are logged
}

func (e *PeerError) Error() string {
	return fmt.Sprintf("session: peer refused: %s: %.200q", e.Code, e.Reason)
}

// ErrTopicGone is matched by a PeerError of a topic whose last subscription ended.
var ErrTopicGone = errors.New("session: topic is gone")

// Is matches ErrTopicGone.
func (e *PeerError) Is(target error) bool {
	return target == ErrTopicGone && e.Code == wire.Code_CODE_TOPIC_GONE
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
