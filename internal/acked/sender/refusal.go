package sender

import (
	"crypto/tls"
	"errors"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// definite tells an attempt to connect that was refused, and will be until somebody changes a configuration, from one that
// may go well the next time.
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

// disconnected notes why there is no connection. After a definite refusal whoever waits is told at once; the messages stay,
// and the link goes on trying, for somebody may be about to allow it.
func (l *Sender) disconnected(err error) {
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
		l.giveUpLocked(err)
	}
}

// established forgets why there was no connection. l.mu is held.
func (l *Sender) established() { l.late, l.refusal = nil, nil }
