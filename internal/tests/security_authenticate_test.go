package tests

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// sender is a publisher with a Manager of its own, as another process has.
func sender(t *testing.T, acked buffstreams.AckedConfig, change func(*buffstreams.PublisherConfig)) *buffstreams.Publisher {
	t.Helper()
	cfg := buffstreams.PublisherConfig{
		CloseTimeout: time.Millisecond, ManagerConfig: buffstreams.ManagerConfig{Acked: quick(acked)}, PublishTimeout: patience,
	}
	if change != nil {
		change(&cfg)
	}
	pub, err := buffstreams.NewPublisher(cfg, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub
}

func bearer(token string) buffstreams.AckedConfig {
	return buffstreams.AckedConfig{Token: buffstreams.StaticToken(token), Insecure: true}
}

func TestToken_RefusedIsReportedAtOnceAndLosesNothing(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Authenticate: buffstreams.Tokens(map[string]string{"good": "orders"})}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	var token atomic.Value
	token.Store("stale")
	pub := sender(t, buffstreams.AckedConfig{Insecure: true, Token: func(context.Context, string) (string, error) {
		return token.Load().(string), nil
	}}, nil)

	err := pub.Publish(h.topic("a"), newMessage("first"))
	require.ErrorIs(t, err, buffstreams.ErrUnauthenticated)
	var refused *buffstreams.PeerError
	require.ErrorAs(t, err, &refused)
	require.NotEmpty(t, refused.Reason)
	require.ErrorContains(t, err, "AckedConfig.Token")
	var failed *buffstreams.PublishError
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.Unknown, 1, "it stays in the window")

	err = pub.Publish(h.topic("a"), newMessage("second"))
	require.ErrorIs(t, err, buffstreams.ErrUnauthenticated)
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.NotSent, 1, "and is not followed by more")

	token.Store("good")
	require.Equal(t, []string{"first"}, receiveAcked(t, messages, 1))
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("third")))
	require.Equal(t, []string{"third"}, receiveAcked(t, messages, 1))
}

func TestToken_MissingIsRefused(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Authenticate: buffstreams.Tokens(map[string]string{"good": "orders"})}})
	subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	require.ErrorIs(t, sender(t, buffstreams.AckedConfig{}, nil).Publish(h.topic("a"), newMessage("x")), buffstreams.ErrUnauthenticated)
	p := dialPeer(t, h.address)
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame})
	p.send(opening(nil)) // as if it had been welcomed
	outcome, code := documentedFault(t, "token or certificate that Authenticate refuses")
	require.Equal(t, "Failure", outcome)
	got, failed := p.ended()
	require.True(t, failed)
	require.Equal(t, code, got)
}

func TestToken_DoesNotGoOverPlaintext(t *testing.T) {
	ln, topic := listenPeer(t)
	err := sender(t, buffstreams.AckedConfig{Token: buffstreams.StaticToken("hunter2")}, nil).Publish(topic, newMessage("x"))
	require.ErrorIs(t, err, buffstreams.ErrInsecureToken)
	require.ErrorContains(t, err, "tls://")
	require.NotContains(t, err.Error(), "hunter2")
	require.NoError(t, ln.(*net.TCPListener).SetDeadline(time.Now()))
	_, err = ln.Accept()
	require.Error(t, err, "it was dialed")
}

// A peer of the plain wire can be known by its certificate only, and must not come in beside Authenticate.
func TestAuthenticate_PlainPeers(t *testing.T) {
	a := testkit.NewAuthority(t)
	serve := func(authenticate func(context.Context, buffstreams.Peer) (string, error)) (string, <-chan string) {
		h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
			ServerTLS: &tls.Config{
				Certificates: []tls.Certificate{a.Certificate("server")}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.Roots(),
			},
			Authenticate: authenticate, Authorize: only(map[string]string{"orders": ""}),
		}})
		h.subscriber.Wire = buffstreams.WireBuffStreams
		messages := subscribe(t, h.newSubscriber(t, nil), "tls://"+h.address)
		got := make(chan string, 10)
		go func() { // ends with the subscription
			for msg := range messages {
				got <- string(msg.Payload)
				msg.Ack()
			}
			close(got)
		}()
		return h.address, got
	}
	send := func(address, name string) {
		cfg := trusting(a).ClientTLS
		if name != "" {
			cfg = trusting(a, a.Certificate(name)).ClientTLS
		}
		conn, err := tls.Dial("tcp", address, cfg)
		require.NoError(t, err)
		_, _ = conn.Write([]byte{2, 0, 0, 'x'}) // its length as BuffStreams writes it
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
		if name != "orders" {
			_, err = conn.Read(make([]byte, 1))
			var timeout net.Error
			require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "%q was let in", name)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	address, got := serve(buffstreams.CertificateName)
	send(address, "")
	send(address, "billing")
	require.Empty(t, got)
	send(address, "orders")
	require.Equal(t, "x", <-got)
}
