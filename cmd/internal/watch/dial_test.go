package watch

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A peer that wants a certificate says so after the handshake: that is what a write fails with, and not that it failed.
func TestDialTLS_WritesFailWithThePeersAlert(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	server.StartTLS()
	defer server.Close()
	conn, err := dialTLS(&tls.Config{InsecureSkipVerify: true})(t.Context(), "tcp", strings.TrimPrefix(server.URL, "https://"))
	require.NoError(t, err)
	_, err = conn.Read(make([]byte, 1))
	require.ErrorContains(t, err, "certificate required")
	require.NoError(t, conn.Close()) // as net/http does
	_, err = conn.Write([]byte("GET / HTTP/1.1\r\n"))
	require.ErrorContains(t, err, "certificate required")
}
