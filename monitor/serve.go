package monitor

import (
	"context"
	"crypto/tls"
	"errors"
	"log" //nolint:depguard // http.Server takes no other logger
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"
)

// InsecureAddressError refuses to serve at an address that other machines can reach, without a token or client
// certificates, or with a token that would go over plaintext.
type InsecureAddressError struct {
	Address string // as it was given to ListenAndServe
	Token   bool   // there is a token, and no TLS
}

func (e *InsecureAddressError) Error() string {
	if e.Token {
		return "monitor: refusing to serve at " + e.Address + ": the token would go over plaintext; give a TLS configuration, or set Config.Insecure"
	}
	return "monitor: refusing to serve at " + e.Address + ", which other machines can reach; set Config.Token, give a TLS configuration " +
		"with ClientAuth tls.RequireAndVerifyClientCert, or set Config.Insecure"
}

const (
	headerTimeout   = 5 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = time.Minute
	shutdownTimeout = time.Second
	maxHeader       = 16 << 10
)

// ListenAndServe serves the Monitor alone at an address, host:port, until ctx is done, and returns nil then. tlsConfig
// is nil for plaintext. At an address that is not loopback it needs a token and TLS, or TLS that verifies client
// certificates: otherwise it returns an *InsecureAddressError. listening, if not nil, is called with the address once
// it listens.
func (m *Monitor) ListenAndServe(ctx context.Context, address string, tlsConfig *tls.Config, listening func(net.Addr)) error {
	if err := m.checkAddress(address, tlsConfig); err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	if listening != nil {
		listening(ln.Addr())
	}
	if tlsConfig != nil {
		ln = tls.NewListener(ln, tlsConfig)
	}
	server := &http.Server{
		Handler: m, ReadHeaderTimeout: headerTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(debugWriter{m.cfg.Logger}, "", 0),
	}
	ended := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if err := server.Shutdown(bounded); err != nil {
			ended <- server.Close() // connections that do not end
			return
		}
		ended <- nil
	})
	err = server.Serve(ln)
	if !stop() {
		err = errors.Join(err, <-ended)
	}
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// debugWriter hands the lines of package net/http to a logger.
type debugWriter struct{ logger watermill.LoggerAdapter }

func (w debugWriter) Write(line []byte) (int, error) {
	w.logger.Debug("Monitor: "+strings.TrimSpace(string(line)), nil)
	return len(line), nil
}

func (m *Monitor) checkAddress(address string, tlsConfig *tls.Config) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	ip, err := netip.ParseAddr(host)
	mutual := tlsConfig != nil && tlsConfig.ClientAuth == tls.RequireAndVerifyClientCert
	switch {
	case m.cfg.Insecure, mutual, host == "localhost", err == nil && ip.Unmap().IsLoopback():
		return nil
	case m.cfg.Token == "":
		return &InsecureAddressError{Address: address}
	case tlsConfig == nil:
		return &InsecureAddressError{Address: address, Token: true}
	}
	return nil
}
