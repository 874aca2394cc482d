package netio

import (
	"crypto/tls"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a listener speaks with is TLS 1.3, without sessions that are resumed, also where the user's own function chooses;
// what the user has given is not changed.
func TestServerTLS_RaisesWhatIsChosenToo(t *testing.T) {
	users := &tls.Config{MinVersion: tls.VersionTLS12}
	raised := func(cfg *tls.Config) {
		t.Helper()
		require.EqualValues(t, MinTLS, cfg.MinVersion)
		require.True(t, cfg.SessionTicketsDisabled)
	}
	raised(ServerTLS(users))

	var chosen *tls.Config
	var failed error
	choosing := ServerTLS(&tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return chosen, failed },
	})
	raised(choosing)
	got, err := choosing.GetConfigForClient(nil)
	require.NoError(t, err)
	require.Nil(t, got, "the listener's own")
	chosen = users
	got, err = choosing.GetConfigForClient(nil)
	require.NoError(t, err)
	raised(got)
	chosen = &tls.Config{MaxVersion: tls.VersionTLS12}
	_, err = choosing.GetConfigForClient(nil)
	require.ErrorContains(t, err, "GetConfigForClient: MaxVersion TLS 1.2")
	failed = errors.New("no such name")
	_, err = choosing.GetConfigForClient(nil)
	require.ErrorIs(t, err, failed)

	require.EqualValues(t, tls.VersionTLS12, users.MinVersion)
	require.False(t, users.SessionTicketsDisabled)
}

// The peer must name the host that is dialed, unless the configuration says another, or verifies nothing.
func TestClientTLS_NamesTheHost(t *testing.T) {
	for _, c := range []struct {
		cfg           *tls.Config
		address, want string
	}{
		{nil, "a.example:1", "a.example"},
		{&tls.Config{MinVersion: MinTLS}, "[::1]:1", "::1"},
		{&tls.Config{MinVersion: MinTLS, ServerName: "b"}, "a.example:1", "b"},
		{&tls.Config{MinVersion: MinTLS, ServerName: "b"}, "/a/path", "b"},
		{&tls.Config{MinVersion: MinTLS, InsecureSkipVerify: true}, "/a/path", ""},
	} {
		got, err := ClientTLS(c.cfg, c.address)
		require.NoError(t, err)
		require.Equal(t, c.want, got.ServerName)
	}
	_, err := ClientTLS(nil, "/a/path")
	require.ErrorContains(t, err, "set ServerName")
}
