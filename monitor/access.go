package monitor

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// refusal is why a request is not let in; empty: it is.
type refusal struct {
	code int
	text string
}

const (
	needsToken = "monitor: a token is needed: send it as a bearer token, or as the password of Basic authentication"
	needsMore  = "monitor: refusing to show this to another machine: set Config.Token, serve with TLS that verifies client " +
		"certificates, or set Config.Insecure"
	needsHost = "monitor: refusing a request whose Host is not this machine: another site may have sent it; use a loopback address, or Config.Token"
)

// admit decides on what names, addresses and errors are shown to.
func (m *Monitor) admit(r *http.Request) refusal {
	switch {
	case m.cfg.Insecure, verified(r):
		return refusal{}
	case m.cfg.Token != "":
		if m.shown(r) {
			return refusal{}
		}
		return refusal{http.StatusUnauthorized, needsToken}
	case !local(r):
		return refusal{http.StatusForbidden, needsMore}
	case !loopbackHost(r.Host):
		return refusal{http.StatusForbidden, needsHost} // a browser was led here by a name that points to loopback
	}
	return refusal{}
}

// verified tells whether the client has shown a certificate that the server's configuration verified.
func verified(r *http.Request) bool { return r.TLS != nil && len(r.TLS.VerifiedChains) > 0 }

// shown compares in a time that tells nothing of the token.
func (m *Monitor) shown(r *http.Request) bool {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		_, token, ok = r.BasicAuth()
	}
	sum := sha256.Sum256([]byte(token))
	return ok && subtle.ConstantTimeCompare(sum[:], m.token[:]) == 1
}

// local tells whether a request comes from this machine, and not through a proxy that runs here.
func local(r *http.Request) bool {
	for _, header := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip", "Via"} {
		if r.Header.Get(header) != "" {
			return false
		}
	}
	return loopback(r.RemoteAddr) || unixSocket(r)
}

func unixSocket(r *http.Request) bool {
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && at.Network() == "unix"
}

func loopback(hostPort string) bool {
	at, err := netip.ParseAddrPort(hostPort)
	return err == nil && at.Addr().Unmap().IsLoopback()
}

func loopbackHost(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	name = strings.Trim(name, "[]")
	ip, err := netip.ParseAddr(name)
	return strings.EqualFold(name, "localhost") || err == nil && ip.Unmap().IsLoopback()
}
