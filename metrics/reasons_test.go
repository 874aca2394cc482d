package metrics

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// selfSigned is a certificate of 127.0.0.1 that ends after left, and a pool that trusts it.
func selfSigned(t *testing.T, left time.Duration) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(left),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	trusts := x509.NewCertPool()
	trusts.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, trusts
}

// listenAt subscribes at a port of loopback, and returns its address.
func listenAt(t *testing.T, topic string, acked buffstreams.AckedConfig) string {
	t.Helper()
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ManagerConfig: buffstreams.ManagerConfig{Acked: acked}}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = sub.Close() })
	_, err = sub.Subscribe(context.Background(), topic)
	require.NoError(t, err)
	at, err := sub.Addr(topic)
	require.NoError(t, err)
	return at.String()
}

// noConnection is a way in which an attempt fails, and its reason.
type noConnection struct {
	name, reason string
	config       buffstreams.ManagerConfig
	topic        func(t *testing.T) string
}

// trustFailures are those of TLS and tokens.
func trustFailures(t *testing.T) []noConnection {
	t.Helper()
	sound, trusted := selfSigned(t, time.Hour)
	expired, trustedTooLong := selfSigned(t, -time.Hour)
	secured := func(cert tls.Certificate, clients *x509.CertPool) buffstreams.AckedConfig {
		cfg := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}
		if clients != nil {
			cfg.ClientCAs, cfg.ClientAuth = clients, tls.RequireAndVerifyClientCert
		}
		return buffstreams.AckedConfig{ServerTLS: cfg}
	}
	dials := func(roots *x509.CertPool) buffstreams.ManagerConfig {
		return buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{ClientTLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}
	}
	return []noConnection{
		{"an expired certificate", "certificate", dials(trustedTooLong), func(t *testing.T) string {
			return "tls://" + listenAt(t, "tls://127.0.0.1:0/t", secured(expired, nil)) + "/t"
		}},
		{"an authority that is not known", "certificate", dials(trustedTooLong), func(t *testing.T) string {
			return "tls://" + listenAt(t, "tls://127.0.0.1:0/t", secured(sound, nil)) + "/t"
		}},
		{"no client certificate", "certificate", dials(trusted), func(t *testing.T) string {
			return "tls://" + listenAt(t, "tls://127.0.0.1:0/t", secured(sound, trusted)) + "/t"
		}},
		{"no token", "unauthenticated", buffstreams.ManagerConfig{}, func(t *testing.T) string {
			return listenAt(t, "127.0.0.1:0/t", buffstreams.AckedConfig{
				Authenticate: func(context.Context, buffstreams.Peer) (string, error) { return "", errors.New("unknown") },
			}) + "/t"
		}},
	}
}

// networkFailures are the others.
func networkFailures() []noConnection {
	return []noConnection{
		{"nothing listens", "refused", buffstreams.ManagerConfig{}, func(*testing.T) string { return deadAddress + "/t" }},
		{"no socket", "refused", buffstreams.ManagerConfig{}, func(t *testing.T) string { return "unix://" + t.TempDir() + "/s#t" }},
		{"a host without an address", "dns", buffstreams.ManagerConfig{Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "host.example", IsNotFound: true}}
		}}, func(*testing.T) string { return "host.example:1/t" }},
		{"no answer", "timeout", buffstreams.ManagerConfig{
			Dial:  func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() },
			Acked: buffstreams.AckedConfig{HandshakeTimeout: 50 * time.Millisecond},
		}, func(*testing.T) string { return "127.0.0.1:1/t" }},
		{"an address that is not allowed", "denied", buffstreams.ManagerConfig{DialAllow: &pool.DialAllow{
			Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
		}}, func(*testing.T) string { return "localhost:1/t" }},
		{"a peer that closes", "closed", buffstreams.ManagerConfig{}, func(t *testing.T) string {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			t.Cleanup(func() { _ = ln.Close() })
			go func() { // ends with the listener
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					_ = conn.Close()
				}
			}()
			return ln.Addr().String() + "/t"
		}},
	}
}

// Each attempt that fails is counted by its reason: real ones, through real sockets.
func TestMetrics_SayWhyThereIsNoConnection(t *testing.T) {
	for _, c := range append(trustFailures(t), networkFailures()...) {
		t.Run(c.name, func(t *testing.T) {
			m := New(Options{})
			registry := prometheus.NewPedanticRegistry()
			registry.MustRegister(m)
			c.config.Hooks, c.config.CloseTimeout = []hooks.Hook{m}, time.Millisecond
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				ManagerConfig: c.config, Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: time.Millisecond,
			}, nil)
			require.NoError(t, err)
			defer func() { _ = pub.Close() }() // the message is left on purpose
			require.NoError(t, pub.Publish(c.topic(t), message.NewMessage(watermill.NewUUID(), nil)))
			require.Eventually(t, func() bool {
				return value(t, registry, "buffstreams_connect_failures_total", map[string]string{"reason": c.reason}) > 0
			}, 20*time.Second, 10*time.Millisecond)
			for _, other := range reasonNames {
				if other != c.reason {
					require.Zero(t, value(t, registry, "buffstreams_connect_failures_total", map[string]string{"reason": other}), other)
				}
			}
		})
	}
}
