package pool

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// TimeoutError is the ErrTimeout of a wait while there was no connection, with the reason for that.
type TimeoutError struct{ Cause error }

func (e *TimeoutError) Error() string { return fmt.Sprintf("%v: %v", ErrTimeout, e.Cause) }

// Is matches ErrTimeout.
func (e *TimeoutError) Is(target error) bool { return target == ErrTimeout }

func (e *TimeoutError) Unwrap() error { return e.Cause }

// definite tells an attempt to connect that was refused, and will be until somebody changes a configuration, from one that
// may go well the next time.
func definite(err error) bool {
	var peer *session.PeerError
	if errors.As(err, &peer) {
		switch peer.Code {
		case wire.Code_CODE_UNAUTHENTICATED, wire.Code_CODE_FORBIDDEN, wire.Code_CODE_VERSION:
			return true
		}
		return false
	}
	var certificate *tls.CertificateVerificationError
	return errors.Is(err, ErrDialDenied) || errors.Is(err, ErrInsecureToken) || errors.As(err, &certificate)
}

// disconnected notes why there is no connection. After a definite refusal whoever waits is told at once; the messages stay,
// and the link goes on trying, for somebody may be about to allow it.
func (l *Link) disconnected(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.late = &TimeoutError{Cause: err}
	if definite(err) {
		l.refusal = err
		l.client.Interrupt(err)
	}
}

// established forgets why there was no connection. l.mu is held.
func (l *Link) established() { l.late, l.refusal = nil, nil }

// overdue is the error of a wait that takes too long. l.mu is held.
func (l *Link) overdue() error {
	if l.late != nil {
		return l.late
	}
	return ErrTimeout
}

// enqueue is the client's Enqueue, unless the last attempt to connect was refused for good and messages wait for the next
// already: then it takes nothing more, so that a caller who tries again piles up no copies. l.mu is held.
func (l *Link) enqueue(o *session.Outbound, b *session.Batch, i int) (taken int, first uint64, err error) {
	if l.refusal != nil && l.client.Pending() > 0 {
		return 0, 0, l.refusal
	}
	return l.client.Enqueue(o, b, i)
}
