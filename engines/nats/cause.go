package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// The server's codes of a lack of room: of the account, of the disk, of the memory, and of a stream's own limits.
var fullCodes = []jetstream.ErrorCode{10002, 10023, 10028, 10047, 10077, 10122}

// cause is the cause of an error of NATS.
func cause(err error) *driver.Cause {
	for cause, errs := range map[*driver.Cause][]error{
		driver.ErrCredentials: {nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired},
		driver.ErrDenied:      {nats.ErrPermissionViolation},
		driver.ErrNoTLS:       {nats.ErrSecureConnWanted},
		driver.ErrProtocol:    {nats.ErrSecureConnRequired, nats.ErrNoInfoReceived},
		driver.ErrUnreachable: {
			nats.ErrNoServers, nats.ErrDisconnected, nats.ErrTimeout, nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
			nats.ErrNoResponders, jetstream.ErrNoStreamResponse, jetstream.ErrNoHeartbeat, // the stream's, or the consumer's
		},
		driver.ErrUnavailable: {jetstream.ErrJetStreamNotEnabled, jetstream.ErrJetStreamNotEnabledForAccount},
	} {
		if slices.ContainsFunc(errs, func(of error) bool { return errors.Is(err, of) }) {
			return cause
		}
	}
	if full(err) {
		return driver.ErrFull
	}
	return nil
}

func full(err error) bool {
	return slices.ContainsFunc(fullCodes, func(code jetstream.ErrorCode) bool { return isCode(err, code) })
}

// request is one that waits for an answer: the server does not answer one that the user may not make, but reports it
// apart.
type request struct {
	subject string // or how it begins
	refuse  context.CancelCauseFunc
}

// asks returns the context of a request, which ends when the server reports that the user may not make it. done ends
// it.
func (b *broker) asks(ctx context.Context, subject string) (asking context.Context, done func()) {
	asking, cancel := context.WithCancelCause(ctx)
	r := &request{subject, cancel}
	b.mu.Lock()
	b.asking[r] = struct{}{}
	b.mu.Unlock()
	return asking, func() {
		b.mu.Lock()
		delete(b.asking, r)
		b.mu.Unlock()
		cancel(nil)
	}
}

// denied ends the requests that an error is about. It returns false if there is none.
func (b *broker) denied(err error) bool {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	found := false
	for r := range b.asking {
		if strings.Contains(err.Error(), `"`+r.subject) { // the protocol has the subject in the text only
			r.refuse(err)
			found = true
		}
	}
	return found
}

// answerOf is causeOf of a request that publishes. A stream that cannot store a message may say nothing.
func answerOf(ctx context.Context, err error) error {
	if err = causeOf(ctx, err); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the stream has not answered: its server is away, or its disk is full, which only its log says, or it has no leader: %w", err)
	}
	return err
}

// causeOf returns why a context of asks has ended, or the error that a request with it had.
func causeOf(ctx context.Context, err error) error {
	if why := context.Cause(ctx); err != nil && errors.Is(why, nats.ErrPermissionViolation) {
		return why
	}
	return err
}
