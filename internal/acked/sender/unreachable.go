package sender

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// ErrTimeout means that messages did not reach the level that was asked for in time. They may still.
var ErrTimeout = errors.New("buffstreams: timed out waiting for the peer")

// TimeoutError is an ErrTimeout that says what was waited for.
type TimeoutError struct {
	Cause error // why there is no connection, or what the peer, or the window, has no room for
}

func (e *TimeoutError) Error() string { return fmt.Sprintf("%v: %v", ErrTimeout, e.Cause) }

// Is matches ErrTimeout.
func (e *TimeoutError) Is(target error) bool { return target == ErrTimeout }

// Unwrap returns Cause.
func (e *TimeoutError) Unwrap() error { return e.Cause }

// timeoutErrorLocked is the error of a wait for a stream whose time is over.
func (s *Sender) timeoutErrorLocked(o *session.Outbound) error {
	switch {
	case s.unreachable != nil:
		return s.unreachable
	case s.conn == nil && s.stage != "":
		return &TimeoutError{Cause: errors.New(s.stage)}
	}
	return &TimeoutError{Cause: s.client.Explain(o)}
}

// disconnected notes why there is no connection. After a definite refusal every wait ends at once; the messages stay,
// and the Sender goes on trying, as a configuration may change.
func (s *Sender) disconnected(err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.unreachable, s.failing = &TimeoutError{Cause: err}, true
	s.noteFailureLocked(err)
	s.client.Unreachable()
	if netio.Refused(err) {
		s.client.Refuse()
	}
	defer s.noteStateLocked()
	if definite(err) {
		s.refusal = err
		s.client.Interrupt(err)
		s.giveUpLocked(err)
	}
}

// definite tells whether an attempt to connect was refused and will be until a configuration changes, here or at the
// peer.
func definite(err error) bool {
	var peer *session.PeerError
	if errors.As(err, &peer) {
		switch session.CodeOf(peer) {
		case wire.Code_CODE_UNAUTHENTICATED, wire.Code_CODE_FORBIDDEN, wire.Code_CODE_VERSION:
			return true
		}
		return false
	}
	var certificate *tls.CertificateVerificationError
	return errors.Is(err, netio.ErrDialDenied) || errors.Is(err, ErrInsecureToken) || errors.As(err, &certificate)
}
