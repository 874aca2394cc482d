package buffstreams

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/receiver"
	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestTokens_MapToPrincipals(t *testing.T) {
	authenticate := Tokens(map[string]string{"alpha": "a", "beta": "b", "": "nobody"})
	for token, want := range map[string]string{"alpha": "a", "beta": "b", "": "", "alph": "", "alpha ": "", "ALPHA": ""} {
		principal, err := authenticate(context.Background(), Peer{Token: token})
		require.Equal(t, want, principal, "%q", token)
		require.Equal(t, want == "", err != nil, "%q", token)
		if err != nil && token != "" {
			require.NotContains(t, err.Error(), token)
		}
	}
}

func TestStaticToken_GoesOnlyWhereItShall(t *testing.T) {
	const mine = "tls://a:1"
	token := func(source func(context.Context, string) (string, error), at string) string {
		s, err := source(context.Background(), at)
		require.NoError(t, err)
		return s
	}
	require.Equal(t, "x", token(StaticToken("x", mine), mine))
	require.Empty(t, token(StaticToken("x", mine), "a:1"))
	require.Empty(t, token(StaticToken("x", mine), "tls://evil:1"))
	require.Equal(t, "x", token(StaticToken("x"), mine))
}

func TestCertificateName_TakesOnlyVerifiedCertificates(t *testing.T) {
	named := &x509.Certificate{Subject: pkix.Name{CommonName: "orders"}}
	for _, c := range []struct {
		state *tls.ConnectionState
		want  string
	}{
		{nil, ""},
		{&tls.ConnectionState{}, ""},
		{&tls.ConnectionState{PeerCertificates: []*x509.Certificate{named}}, ""}, // RequestClientCert verifies nothing
		{&tls.ConnectionState{
			PeerCertificates: []*x509.Certificate{named}, VerifiedChains: [][]*x509.Certificate{{named}},
		}, "orders"},
		{&tls.ConnectionState{
			PeerCertificates: []*x509.Certificate{{}}, VerifiedChains: [][]*x509.Certificate{{{}}},
		}, ""},
	} {
		principal, err := CertificateName(context.Background(), Peer{TLS: c.state})
		require.Equal(t, c.want, principal)
		require.Equal(t, c.want == "", err != nil)
	}
}

func TestToken_IsNotSentToUnverifiedPeers(t *testing.T) {
	_, err := NewManager(ManagerConfig{Acked: AckedConfig{Token: StaticToken("x"), ClientTLS: &tls.Config{InsecureSkipVerify: true}}})
	require.ErrorContains(t, err, "AckedConfig.Token")
}

// A token that must not be sent is seen at once, the peer sees nothing, and the messages stay.
func TestToken_InsecureFailsPublishWithoutADial(t *testing.T) {
	peer := testkit.NewPeerServer(t, "127.0.0.1:0")
	m := newTestManager(t, ManagerConfig{Acked: AckedConfig{Token: StaticToken("hunter2")}})
	l := senderTo(t, m, tcp(peer.Address()))
	_, err := publishOne(t, l, "x")
	require.ErrorIs(t, err, sender.ErrInsecureToken)
	require.Equal(t, 1, l.Pending())
	require.NoError(t, peer.Listener.(*net.TCPListener).SetDeadline(time.Now()))
	_, err = peer.Listener.Accept()
	require.Error(t, err)
}

func TestPublisherID_DiffersForEachReceiver(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	a, err := m.senderConfig(tcp("127.0.0.1:1"))
	require.NoError(t, err)
	b, err := m.senderConfig(tcp("127.0.0.1:2"))
	require.NoError(t, err)
	require.NotEqual(t, a.Identity.Publisher, b.Identity.Publisher)
	require.NotEqual(t, a.Identity.Secret, b.Identity.Secret)
}

func TestPublishTimeout_SaysWhyThereIsNoConnection(t *testing.T) {
	network := testkit.NewNetwork()
	network.SetDown(true)
	m := newTestManager(t, ManagerConfig{Dial: network.Dial})
	l := senderTo(t, m, tcp("127.0.0.1:1"))
	_, _, err := l.Publish(context.Background(), "a", acktest.BatchOf(t, "x"), session.Received, 2*time.Second) // in which it is dialed
	require.ErrorIs(t, err, sender.ErrTimeout)
	require.ErrorIs(t, err, testkit.ErrNetworkDown)
	var late *sender.TimeoutError
	require.ErrorAs(t, err, &late)
}

// Authorize is asked about all that is known of a peer and what it wants.
func TestAuthorize_IsToldWhoWantsWhat(t *testing.T) {
	require.Nil(t, (&AckedConfig{}).authorize())
	var asked Access
	var ended func() error
	refuses := errors.New("no")
	cfg := &AckedConfig{Authorize: func(ctx context.Context, a Access) error { ended, asked = ctx.Err, a; return refuses }}
	from := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 7}
	require.ErrorIs(t, cfg.authorize()(t.Context(), receiver.Access{Principal: "billing", Topic: "orders", Address: from}), refuses)
	require.Equal(t, Access{Action: ActionPublish, Principal: "billing", Topic: "orders", Address: from}, asked)

	m := newTestManager(t, ManagerConfig{Acked: AckedConfig{Authorize: cfg.Authorize}})
	require.ErrorIs(t, m.allowSubscribe("orders"), refuses)
	require.Equal(t, Access{Action: ActionSubscribe, Topic: "orders"}, asked)
	require.Error(t, ended(), "what it has started ends with the call")
}
