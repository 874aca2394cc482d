package sender

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

func TestSender_SendsNoTokenInPlaintext(t *testing.T) {
	token := func(context.Context) (string, error) { return "hunter2", nil }
	tcp, unix := netio.Target{Network: "tcp", Address: "127.0.0.1:1"}, netio.Target{Network: "unix", Address: "/s"}
	for _, c := range []struct {
		name string
		cfg  Config
		err  error
	}{
		{"plaintext, also on loopback", Config{Target: tcp}, ErrInsecureToken},
		{"plaintext that was asked for", Config{Target: tcp, Insecure: true}, nil},
		{"TLS", Config{Target: tcp, TLS: &tls.Config{}}, nil},
		{"a unix socket", Config{Target: unix}, nil},
	} {
		c.cfg.Token = token
		got, err := c.cfg.token(context.Background())
		require.ErrorIs(t, err, c.err, c.name)
		require.Equal(t, c.err == nil, string(got) == "hunter2", c.name)
	}
	none := Config{Target: tcp, Token: func(context.Context) (string, error) { return "", nil }}
	got, err := none.token(context.Background())
	require.NoError(t, err)
	require.Empty(t, got)
	none.Token = func(context.Context) (string, error) { return strings.Repeat("x", maxToken+1), nil }
	_, err = none.token(context.Background())
	require.ErrorContains(t, err, "more than")
	require.NotContains(t, err.Error(), "xxx")
}
