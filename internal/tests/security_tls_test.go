package tests

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// trusting is the configuration of a sender that trusts an authority and has certificates.
func trusting(a *testkit.Authority, certificates ...tls.Certificate) buffstreams.AckedConfig {
	return buffstreams.AckedConfig{ClientTLS: &tls.Config{RootCAs: a.Roots(), Certificates: certificates}}
}

func TestTLS_Mutual(t *testing.T) {
	a, stranger := testkit.NewAuthority(t), testkit.NewAuthority(t)
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		ServerTLS: &tls.Config{
			Certificates: []tls.Certificate{a.Certificate("server")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.Roots(),
		},
		Authenticate: buffstreams.CertificateName, Authorize: only(map[string]string{"orders": "orders"}),
	}})
	topic := func(name string) string { return "tls://" + h.topic(name) }
	sub := h.newSubscriber(t, nil)
	messages := subscribe(t, sub, topic("orders"))
	subscribe(t, sub, topic("billing"))

	pub := sender(t, trusting(a, a.Certificate("orders")), nil)
	require.NoError(t, pub.Publish(topic("orders"), newMessage("x")))
	receiveAcked(t, messages, 1)
	require.ErrorIs(t, pub.Publish(topic("billing"), newMessage("x")), buffstreams.ErrForbidden)
	require.ErrorIs(t, sender(t, trusting(a, a.Certificate("other")), nil).Publish(topic("orders"), newMessage("x")), buffstreams.ErrForbidden)

	brief := func(c *buffstreams.PublisherConfig) { c.PublishTimeout = 300 * time.Millisecond }
	for name, cfg := range map[string]buffstreams.AckedConfig{
		"none": trusting(a), "of another authority": trusting(a, stranger.Certificate("orders")),
	} {
		pub, err := sender(t, cfg, brief), error(nil)
		require.Eventually(t, func() bool { // as soon as there was an attempt to connect
			err = pub.Publish(topic("orders"), newMessage("x"))
			return errors.Is(err, buffstreams.ErrTimeout) && strings.Contains(err.Error(), "certificate")
		}, patience, time.Millisecond, "%s: the timeout says why: %v", name, err)
	}
	var unproved *tls.CertificateVerificationError
	require.ErrorAs(t, sender(t, trusting(stranger, a.Certificate("orders")), nil).Publish(topic("orders"), newMessage("x")), &unproved)
}
