package watch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// useMonitor is what to do where an address is not that of a monitor.
const useMonitor = "use the address of the HTTP server that has the monitor, with the path where it is mounted"

// noAnswer says what there is at an address that gave no answer in HTTP, and what to do.
func noAnswer(err error) error {
	var request *url.Error // it repeats the address
	if errors.As(err, &request) {
		err = request.Err
	}
	var op *net.OpError
	var noTLS tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	switch hasOp := errors.As(err, &op); {
	case hasOp && op.Op == "dial":
		return fmt.Errorf("%w; is the process up, and is this the address of its monitor?", op)
	case hasOp && op.Op == "remote error": // as crypto/tls calls an alert
		return fmt.Errorf("the peer refuses the TLS connection: %w; check --tls-cert and --tls-key", op)
	case errors.As(err, &certificate):
		return fmt.Errorf("%w; --tls-ca names the certificates to verify it by", err)
	case errors.As(err, &noTLS), errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("the peer does not use TLS: %w; use an http:// address", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer in time: %w; is this the address of a monitor?", err)
	}
	return fmt.Errorf("the peer does not speak HTTP: %w; it may be a listener of messages, or want https://; %s", err, useMonitor)
}

// notOK says what an answer means that is no success.
func notOK(answer *http.Response, body []byte) string {
	text := answer.Status
	if said := strings.TrimSpace(string(body)); said != "" {
		text += fmt.Sprintf(": %.200q", said)
	}
	switch {
	case answer.StatusCode == http.StatusNotFound:
		text += "; an HTTP server, but no monitor at this path: " + useMonitor
	case answer.Header.Get("Location") != "":
		text += fmt.Sprintf("; it redirects to %.200q: use that address if it is the monitor's", answer.Header.Get("Location"))
	}
	return text
}
