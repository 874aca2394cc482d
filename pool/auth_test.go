package pool

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

func TestTokensTellPrincipals(t *testing.T) {
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

func TestStaticTokenGoesOnlyWhereItShall(t *testing.T) {
	mine := Target{Network: "tcp", Address: "a:1", TLS: true}
	token := func(source func(context.Context, Target) (string, error), at Target) string {
		s, err := source(context.Background(), at)
		require.NoError(t, err)
		return s
	}
	require.Equal(t, "x", token(StaticToken("x", mine), mine))
	require.Empty(t, token(StaticToken("x", mine), Target{Network: "tcp", Address: "a:1"}))
	require.Empty(t, token(StaticToken("x", mine), Target{Network: "tcp", Address: "evil:1", TLS: true}))
	require.Equal(t, "x", token(StaticToken("x"), mine))
}

func TestCertificateNameTakesOnlyVerifiedCertificates(t *testing.T) {
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

func TestTokensAreNotSentInPlaintext(t *testing.T) {
	token := func(context.Context, Target) (string, error) { return "hunter2", nil }
	tcp, unix := Target{Network: "tcp", Address: "127.0.0.1:1"}, Target{Network: "unix", Address: "/s"}
	for _, c := range []struct {
		name string
		cfg  linkConfig
		err  error
	}{
		{"plaintext, also on loopback", linkConfig{target: tcp}, ErrInsecureToken},
		{"plaintext that was asked for", linkConfig{target: tcp, AckedConfig: AckedConfig{Insecure: true}}, nil},
		{"TLS", linkConfig{target: tcp, tls: &tls.Config{}}, nil},
		{"a unix socket", linkConfig{target: unix}, nil},
	} {
		c.cfg.Token = token
		got, err := c.cfg.token(context.Background())
		require.ErrorIs(t, err, c.err, c.name)
		require.Equal(t, c.err == nil, string(got) == "hunter2", c.name)
	}
	none := linkConfig{target: tcp, AckedConfig: AckedConfig{Token: StaticToken("")}}
	got, err := none.token(context.Background())
	require.NoError(t, err)
	require.Empty(t, got)
	none.Token = StaticToken(strings.Repeat("x", maxToken+1))
	_, err = none.token(context.Background())
	require.ErrorContains(t, err, "more than")
	require.NotContains(t, err.Error(), "xxx")

	_, err = NewManager(ManagerConfig{Acked: AckedConfig{Token: token, ClientTLS: &tls.Config{InsecureSkipVerify: true}}})
	require.ErrorContains(t, err, "AckedConfig.Token")
}

// A token that must not be sent is seen at once, the peer sees nothing, and the messages stay.
func TestAnInsecureTokenFailsPublishAndDialsNobody(t *testing.T) {
	peer := newPeerServer(t, "127.0.0.1:0")
	m := newTestManager(t, ManagerConfig{Acked: AckedConfig{Token: StaticToken("hunter2")}})
	l := linkTo(t, m, Target{Network: "tcp", Address: peer.address()})
	_, err := publishOne(t, l, "x")
	require.ErrorIs(t, err, ErrInsecureToken)
	require.Equal(t, 1, l.Pending())
	require.NoError(t, peer.ln.(*net.TCPListener).SetDeadline(time.Now()))
	_, err = peer.ln.Accept()
	require.Error(t, err)
}

func TestHooksThatFailDoNotLetIn(t *testing.T) {
	g := guard{timeout: time.Second, logger: newPlainLog(), address: "here"}
	peer := Peer{Address: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}}
	for _, c := range []struct {
		name string
		hook error
		code wire.Code
	}{
		{"refusal", errors.New("no"), wire.Code_CODE_UNAUTHENTICATED},
		{"nobody", nil, wire.Code_CODE_UNAUTHENTICATED},
		{"the hook cannot tell now", fmt.Errorf("directory is down: %w", ErrUnavailable), wire.Code_CODE_LIMIT},
	} {
		g.authenticate = func(context.Context, Peer) (string, error) { return "", c.hook }
		_, refused := g.admit(context.Background(), peer)
		require.Equal(t, c.code, refused.Code, c.name)
		require.NotContains(t, refused.Reason, "directory", "a stranger is not told why")
	}
	g.authenticate = func(context.Context, Peer) (string, error) { panic("oops") }
	principal, refused := g.admit(context.Background(), peer)
	require.Equal(t, wire.Code_CODE_UNAUTHENTICATED, refused.Code)
	require.Empty(t, principal)

	access := Access{Action: Publish, Principal: "p", Topic: "t", Address: peer.Address}
	g.authorize = func(context.Context, Access) error { panic("oops") }
	require.Equal(t, wire.Code_CODE_FORBIDDEN, g.allow(context.Background(), access).Code)
	g.authorize = func(context.Context, Access) error { return ErrUnavailable }
	require.Equal(t, wire.Code_CODE_LIMIT, g.allow(context.Background(), access).Code)
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	g.authorize = func(ctx context.Context, _ Access) error { return ctx.Err() }
	require.Equal(t, wire.Code_CODE_LIMIT, g.allow(ended, access).Code)
	g.authorize = func(_ context.Context, a Access) error {
		require.Equal(t, access, a)
		return nil
	}
	require.Nil(t, g.allow(context.Background(), access))
}

// With authentication an id belongs to its principal: the right secret is not enough.
func TestAPublisherIDBelongsToItsPrincipal(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	e, err := m.Endpoint(Target{Network: "tcp", Address: "127.0.0.1:0"})
	require.NoError(t, err)
	open := func(epoch uint64) *wire.Open {
		return &wire.Open{Publisher: make([]byte, 16), Secret: make([]byte, 16), Epoch: epoch, Stream: 1, Topic: "a", Base: 1}
	}
	s, refused := e.open(open(1), "alice")
	require.Nil(t, refused)
	for _, epoch := range []uint64{1, 9} {
		_, refused = e.open(open(epoch), "bob")
		require.Equal(t, wire.Code_CODE_FENCED, refused.Code)
	}
	again, refused := e.open(open(1), "alice") // the stranger's epoch has moved nothing
	require.Nil(t, refused)
	require.Same(t, s, again)
}

func TestEachReceiverKnowsAPublisherByAnotherID(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	a := linkTo(t, m, Target{Network: "tcp", Address: "127.0.0.1:1"})
	b := linkTo(t, m, Target{Network: "tcp", Address: "127.0.0.1:2"})
	require.NotEqual(t, a.cfg.identity.Publisher, b.cfg.identity.Publisher)
	require.NotEqual(t, a.cfg.identity.Secret, b.cfg.identity.Secret)
}

func TestATimeoutSaysWhyThereIsNoConnection(t *testing.T) {
	network := newPipes()
	network.setDown(true)
	m := newTestManager(t, ManagerConfig{Dial: network.dial})
	l := linkTo(t, m, Target{Network: "tcp", Address: "127.0.0.1:1"})
	_, err := l.Publish(context.Background(), "a", batchOf(t, "x"), session.Received, 200*time.Millisecond)
	require.ErrorIs(t, err, ErrTimeout)
	require.ErrorIs(t, err, errNetworkDown)
	var late *TimeoutError
	require.ErrorAs(t, err, &late)
}
