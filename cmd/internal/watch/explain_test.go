package watch

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/access"
)

// says is an HTTP server that has one answer.
func says(t *testing.T, status int, body string, tlsConfig *tls.Config) string {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if status == http.StatusFound {
			w.Header().Set("Location", "/login")
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body)) // the client may have gone
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if server.TLS = tlsConfig; tlsConfig != nil {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server.URL
}

// listens is a listener of messages.
func listens(t *testing.T) string {
	t.Helper()
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Close()) })
	_, err = sub.Subscribe(context.Background(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	at, err := sub.Addr("127.0.0.1:0/orders")
	require.NoError(t, err)
	return at.String()
}

// silent takes connections and says nothing; closed is an address at which nothing listens.
func silent(t *testing.T) (open, closed string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, ln.Close()) })
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	return ln.Addr().String(), gone.Addr().String()
}

// Whatever is at an address that is no monitor's, the error says what it is, and what to do.
func TestSource_SaysWhatIsNoMonitor(t *testing.T) {
	message, secured := listens(t), says(t, http.StatusOK, "{}", &tls.Config{})
	open, closed := silent(t)
	wantsCertificate := says(t, http.StatusOK, "{}", &tls.Config{ClientAuth: tls.RequireAnyClientCert})
	for name, c := range map[string]struct {
		address string
		trust   bool
		parts   []string
	}{
		"listener of messages":    {message, false, []string{"does not speak HTTP", "EOF", "listener of messages", useMonitor}},
		"the same with https":     {"https://" + message, true, []string{"does not speak HTTP", "listener of messages"}},
		"TLS at http":             {secured[len("https://"):], false, []string{"400 Bad Request", "HTTPS"}},
		"unknown certificate":     {secured, false, []string{"unknown authority", "--tls-ca"}},
		"wants a certificate":     {wantsCertificate, true, []string{"refuses the TLS connection", "certificate required", "--tls-cert"}},
		"plaintext at https":      {"https://" + says(t, 200, "{}", nil)[len("http://"):], true, []string{"does not use TLS", "http://"}},
		"no such path":            {says(t, 404, "not here\n", nil), false, []string{`404 Not Found: "not here"`, "no monitor at this path", useMonitor}},
		"login page":              {says(t, 302, "", nil), false, []string{"302 Found", `redirects to "/login"`}},
		"page":                    {says(t, 200, "<html>", nil), false, []string{"an HTTP server, but no monitor", useMonitor}},
		"other JSON":              {says(t, 200, `{"status": "up"}`, nil), false, []string{"no monitor", "has no version", useMonitor}},
		"list":                    {says(t, 200, `[]`, nil), false, []string{"no monitor", useMonitor}},
		"another version":         {says(t, 200, `{"version": 99, "addresses": "many"}`, nil), false, []string{"version 99, this command knows 1", "use the command of the version"}},
		"this version, but wrong": {says(t, 200, `{"version": 1, "addresses": "many"}`, nil), false, []string{"no statistics of version 1"}},
		"silent":                  {open, false, []string{"no answer in time", "is this the address of a monitor?"}},
		"nothing":                 {closed, false, []string{"connection refused", "is the process up"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(c.address, access.Access{})
			require.NoError(t, err)
			defer s.Close()
			if c.trust {
				s.client.Transport = &http.Transport{DialTLSContext: dialTLS(&tls.Config{InsecureSkipVerify: true})}
			}
			limit := 20 * time.Second
			if name == "silent" {
				limit = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			_, err = s.Stats(ctx, 0)
			for _, part := range c.parts {
				require.ErrorContains(t, err, part)
			}
			require.NotContains(t, err.Error(), "Get ", "the address is said once")
		})
	}
}
