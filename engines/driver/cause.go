package driver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// Cause is why an engine's server cannot be used, and what helps. Errors match the values below.
type Cause struct{ what, todo string }

func (c *Cause) Error() string { return c.what }

// The causes.
var (
	// ErrUnreachable means that no server answers.
	ErrUnreachable = &Cause{"no server answers", "check the host and the port of the URL, whether that port has TLS, and that the server runs"}
	// ErrProtocol means that what answers is not the engine's server, or not in this way.
	ErrProtocol = &Cause{"what answers there does not speak the engine's protocol", "check the port, and whether the scheme has to be the one with TLS"}
	// ErrNoTLS means that the URL asks for TLS and the server has none there.
	ErrNoTLS = &Cause{"the server has no TLS there", "take the port that has it, or the scheme without TLS where the network may be trusted"}
	// ErrCertificate means that one side does not accept the other's certificate.
	ErrCertificate = &Cause{"a certificate is not accepted", "tls_ca names the file of the server's authority, tls_cert and tls_key those that it demands of its clients"}
	// ErrCredentials means that the server refuses the user or the secret.
	ErrCredentials = &Cause{"the server refuses the credentials", "check the user of the URL, and its password, token or certificate"}
	// ErrDenied means that the user lacks a permission.
	ErrDenied = &Cause{"the user may not do that", "grant the URL's user the permission, or name another user"}
	// ErrNoDatabase means that the place within the server that a URL names is not there.
	ErrNoDatabase = &Cause{"what the path of the URL names does not exist, or is closed to the user", "make it, or correct the path"}
	// ErrFull means that the server takes no more for now: it has no room.
	ErrFull = &Cause{"the server has no room", "make room, or raise its limit: what was not confirmed can be published again then"}
	// ErrUnavailable means that the server has not what the engine needs.
	ErrUnavailable = &Cause{"the server cannot do that", "check its configuration and version"}
)

// ServerError says what keeps an engine's server from being used.
type ServerError struct {
	Engine string
	// Cause is one of the causes above.
	Cause *Cause
	// Err is what the server, its client or the network has said.
	Err error
}

func (e *ServerError) Error() string {
	said := strings.NewReplacer("\n\t", " ", "\n", "; ").Replace(e.Err.Error()) // several errors, in a line
	return fmt.Sprintf("engines: %s: %s: %s; %s", e.Engine, e.Cause.what, said, e.Cause.todo)
}

// Unwrap returns the cause and what was said.
func (e *ServerError) Unwrap() []error { return []error{e.Cause, e.Err} }

// NetworkCause is the cause of an error of the network or of TLS, or nil.
func NetworkCause(err error) *Cause {
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	var verification *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	var op *net.OpError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &authority), errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &verification), errors.As(err, &alert):
		return ErrCertificate
	case errors.As(err, &record):
		return ErrNoTLS
	case errors.As(err, &op) && op.Op == "dial", errors.As(err, &dns), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return ErrUnreachable
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return ErrProtocol
	}
	return nil
}
