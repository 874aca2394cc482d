package sender

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/buffstreams/watermill-buffstreams/framing"
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

// notGreeted says what it can mean that a connection ended with err before the peer had greeted.
func notGreeted(err error) error {
	var length *framing.LengthError
	var op *net.OpError
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		return fmt.Errorf("the peer does not answer the greeting: is it a listener of this library, and alive? %w", err)
	case errors.As(err, &length): // another limit would not help
		return fmt.Errorf("the peer does not speak this protocol: does something else listen there? Its answer would have %d bytes", length.Length)
	case errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return ended(err)
	}
	return fmt.Errorf("the peer does not speak this protocol: does something else listen there? %w", err)
}

// ended says what it can mean that the peer ended a connection before it had greeted. Other errors stay as they are.
func ended(err error) error {
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "remote error": // an alert of TLS, as crypto/tls calls it
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the peer ended the connection without a greeting: does only one side use TLS? %w", err)
	}
	return err
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
