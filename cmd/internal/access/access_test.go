package access

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

func TestAccess_TokenFileIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("  first \nsecond line\n"), 0o600))
	var client, server buffstreams.AckedConfig
	a := Access{TokenFile: path}
	require.NoError(t, a.Client(&client))
	require.NoError(t, a.Server(&server))
	for _, token := range []string{"first", "renewed"} {
		shown, err := client.Token(t.Context(), "127.0.0.1:1")
		require.NoError(t, err)
		require.Equal(t, token, shown)
		_, err = server.Authenticate(t.Context(), buffstreams.Peer{Token: token})
		require.NoError(t, err)
		_, err = server.Authenticate(t.Context(), buffstreams.Peer{Token: "other"})
		require.Error(t, err)
		require.NotContains(t, err.Error(), token)
		require.NoError(t, os.WriteFile(path, []byte("renewed"), 0o600))
	}
	require.NoError(t, os.Remove(path))
	_, err := server.Authenticate(t.Context(), buffstreams.Peer{Token: "renewed"})
	require.ErrorIs(t, err, buffstreams.ErrUnavailable, "the peer comes back")
}

func TestAccess_RefusesWhatIsNoToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for _, content := range []string{"", "\n", strings.Repeat("x", maxToken+1)} {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		require.ErrorContains(t, Access{TokenFile: path}.Client(&buffstreams.AckedConfig{}), "first line")
	}
	require.ErrorContains(t, Access{TokenFile: path + "no"}.Server(&buffstreams.AckedConfig{}), "cannot read the token")
}

func TestAccess_NeedsCertificateAndKey(t *testing.T) {
	require.Error(t, Access{Certificate: "x"}.Server(&buffstreams.AckedConfig{}))
	require.Error(t, Access{Key: "x"}.Client(&buffstreams.AckedConfig{}))
	var cfg buffstreams.AckedConfig
	require.NoError(t, Access{}.Server(&cfg))
	require.NoError(t, Access{}.Client(&cfg))
	require.Nil(t, cfg.Token)
	require.Nil(t, cfg.ServerTLS)
}
