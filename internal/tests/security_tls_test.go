package tests

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	t     *testing.T
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	roots *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, roots: x509.NewCertPool()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	a.key = key
	a.roots.AddCert(a.cert)
	return a
}

func (a *authority) issue(name string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(a.t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) client(certificates ...tls.Certificate) buffstreams.AckedConfig {
	return buffstreams.AckedConfig{ClientTLS: &tls.Config{RootCAs: a.roots, Certificates: certificates}}
}

func TestTLS_Mutual(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		ServerTLS: &tls.Config{
			Certificates: []tls.Certificate{a.issue("server")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.roots,
		},
		Authenticate: buffstreams.CertificateName, Authorize: only(map[string]string{"orders": "orders"}),
	}})
	topic := func(name string) string { return "tls://" + h.topic(name) }
	sub := h.newSubscriber(t, nil)
	messages := subscribe(t, sub, topic("orders"))
	subscribe(t, sub, topic("billing"))

	pub := sender(t, a.client(a.issue("orders")), nil)
	require.NoError(t, pub.Publish(topic("orders"), newMessage("x")))
	receiveAcked(t, messages, 1)
	require.ErrorIs(t, pub.Publish(topic("billing"), newMessage("x")), buffstreams.ErrForbidden)
	require.ErrorIs(t, sender(t, a.client(a.issue("other")), nil).Publish(topic("orders"), newMessage("x")), buffstreams.ErrForbidden)

	brief := func(c *buffstreams.PublisherConfig) { c.PublishTimeout = 300 * time.Millisecond }
	for name, cfg := range map[string]buffstreams.AckedConfig{
		"none": a.client(), "of another authority": a.client(stranger.issue("orders")),
	} {
		pub, err := sender(t, cfg, brief), error(nil)
		require.Eventually(t, func() bool { // as soon as there was an attempt to connect
			err = pub.Publish(topic("orders"), newMessage("x"))
			return errors.Is(err, buffstreams.ErrTimeout) && strings.Contains(err.Error(), "certificate")
		}, patience, time.Millisecond, "%s: the timeout says why: %v", name, err)
	}
	var unproved *tls.CertificateVerificationError
	require.ErrorAs(t, sender(t, stranger.client(a.issue("orders")), nil).Publish(topic("orders"), newMessage("x")), &unproved)
}
