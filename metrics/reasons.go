package metrics

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// reason is why an attempt to connect has ended without a welcome.
type reason int

const (
	refused         reason = iota // nothing listens there
	timeout                       // no answer in time
	dns                           // the name of the host has no address
	certificate                   // this side does not trust the peer's, or the peer this side's
	unauthenticated               // the peer has refused the token or the identity
	denied                        // the configuration of this side does not allow it
	closed                        // the peer has closed the connection before its welcome
	other
	reasonCount
)

// reasonNames are the values of the label reason.
var reasonNames = [reasonCount]string{"refused", "timeout", "dns", "certificate", "unauthenticated", "denied", "closed", Other}

// remoteAlert is the operation that package crypto/tls names where the peer has ended a handshake.
const remoteAlert = "remote error"

// reasonOf classifies the error of an attempt; nil: the peer has closed the connection.
func reasonOf(err error) reason {
	var (
		verification *tls.CertificateVerificationError
		invalid      x509.CertificateInvalidError
		op           *net.OpError
		lookup       *net.DNSError
		netErr       net.Error
	)
	switch {
	case err == nil:
		return closed
	case errors.Is(err, buffstreams.ErrUnauthenticated), errors.Is(err, buffstreams.ErrFenced):
		return unauthenticated
	case errors.Is(err, buffstreams.ErrDialDenied), errors.Is(err, buffstreams.ErrInsecureToken):
		return denied
	case errors.As(err, &verification), errors.As(err, &invalid):
		return certificate
	case errors.As(err, &op) && op.Op == remoteAlert:
		return certificate // the peer does not accept that of this side, or has no version of TLS in common
	case errors.As(err, &lookup):
		return dns
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, os.ErrNotExist): // the socket of a Unix address
		return refused
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return timeout
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return closed
	}
	return other
}
