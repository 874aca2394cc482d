package monitor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/monitor"
	"github.com/buffstreams/watermill-buffstreams/route"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// requireStuck waits until something is stuck for a reason, and returns it.
func requireStuck(t *testing.T, m *monitor.Monitor, what, part string) (found monitor.Stuck) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, one := range getStats(t, m, "").Stuck {
			if found = one; one.What == what && strings.Contains(one.Name+": "+one.Why, part) {
				return true
			}
		}
		return false
	}, limit, 50*time.Millisecond)
	return found
}

func TestBroken_PoisonedKeyIsNamed(t *testing.T) {
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{CloseTimeout: time.Millisecond})
	require.NoError(t, err)
	defer func() { _ = manager.Close() }() // messages are left on purpose
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		Manager: manager, ConsumerGroup: "g", MaxInFlight: 10, CloseTimeout: time.Millisecond,
		Key: func(m *message.Message) string { return m.Metadata.Get("customer") },
	}, nil)
	require.NoError(t, err)
	defer func() { _ = sub.Close() }()
	messages, err := sub.Subscribe(t.Context(), "127.0.0.1:0/orders")
	require.NoError(t, err)
	at, err := sub.Addr("127.0.0.1:0/orders")
	require.NoError(t, err)
	go func() { // ends with the Subscriber
		for m := range messages {
			if m.Metadata.Get("customer") == "poisoned" {
				m.Nack()
			} else {
				m.Ack()
			}
		}
	}()
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: manager}, nil)
	require.NoError(t, err)
	defer func() { _ = publisher.Close() }()
	for _, customer := range []string{"poisoned", "sound", "poisoned", "poisoned", "sound"} {
		m := message.NewMessage("", []byte("x"))
		m.Metadata.Set("customer", customer)
		require.NoError(t, publisher.Publish(at.String()+"/orders", m))
	}
	m, err := monitor.New(monitor.Config{Managers: map[string]*buffstreams.Manager{"main": manager}, StuckAfter: 100 * time.Millisecond})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	found := requireStuck(t, m, "key", `orders group g key "poisoned"`)
	require.Contains(t, found.Why, "wait: 2")
}

func TestBroken_ExpiredCertificateIsNamed(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	cfg := buffstreams.ManagerConfig{CloseTimeout: time.Millisecond}
	cfg.Acked.ServerTLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	cfg.Acked.ClientTLS = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
	w := newWorld(t, cfg)
	_, err = w.sub.Subscribe(t.Context(), "tls://127.0.0.1:0/secured")
	require.NoError(t, err)
	at, err := w.sub.Addr("tls://127.0.0.1:0/secured")
	require.NoError(t, err)
	require.NoError(t, w.publisher.Publish("tls://"+at.String()+"/secured", message.NewMessage("", nil)))
	m := w.monitor(t, monitor.Config{})
	found := requireStuck(t, m, "address", "expired")
	require.Contains(t, found.Name, "tls://"+at.String())
	require.True(t, found.Critical)
}

// fullDisk is an outbox that a full disk has stopped.
type fullDisk struct{}

func (fullDisk) Stats() store.OutboxStats {
	return store.OutboxStats{Name: "/var/spool/orders", Err: "no space left on device", Delivering: true}
}

func TestBroken_FullDiskIsNamed(t *testing.T) {
	m, err := monitor.New(monitor.Config{Outboxes: map[string]monitor.Outbox{"orders": fullDisk{}}})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	requireStuck(t, m, "outbox", "/var/spool/orders: it takes nothing any more: no space left on device")
	require.Contains(t, get(m, "/readyz").Body.String(), "outbox orders: no space left on device")
}

// slowDisk is an outbox whose disk does not answer.
type slowDisk struct{}

func (slowDisk) Stats() store.OutboxStats {
	return store.OutboxStats{
		Name: "/mnt/orders", Delivering: true, Pending: 3, WritingSince: time.Now().Add(-time.Minute),
		NotReady: []string{"a write to the disk has been under way since noon"},
	}
}

func TestBroken_SlowDiskIsNamed(t *testing.T) {
	m, err := monitor.New(monitor.Config{Outboxes: map[string]monitor.Outbox{"orders": slowDisk{}}})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	requireStuck(t, m, "outbox", "/mnt/orders: a write to its disk has not ended; 3 messages wait")
	require.Contains(t, get(m, "/readyz").Body.String(), "outbox orders: a write to the disk has been under way since noon")
}

func TestBroken_LookupsThatFailAreNamed(t *testing.T) {
	down := atomic.Bool{}
	down.Store(true)
	w := newWorld(t, buffstreams.ManagerConfig{})
	address := strings.TrimSuffix(w.topic, "/orders")
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: w.manager, PublishTimeout: limit,
		Resolver: route.Func(func(context.Context, string) (route.Route, error) {
			if down.Load() {
				return route.Route{}, &net.DNSError{Err: "server misbehaving", Name: "orders.example", IsTemporary: true}
			}
			return route.Route{Addresses: []string{address}}, nil
		}),
	}, nil)
	require.NoError(t, err)
	defer func() { _ = publisher.Close() }()
	published := make(chan error, 1)
	go func() { published <- publisher.Publish("orders", message.NewMessage("", nil)) }() // ends when the DNS is back
	m := w.monitor(t, monitor.Config{Publishers: map[string]*buffstreams.Publisher{"shop": publisher}})
	found := requireStuck(t, m, "topic", "shop to topic orders: it has no route: lookup orders.example: server misbehaving; 1 Publish call waits")
	require.True(t, found.Critical)
	require.Contains(t, get(m, "/readyz").Body.String(), `publisher shop: topic "orders" has no route: lookup orders.example: server misbehaving`)
	down.Store(false)
	require.NoError(t, <-published)
	require.Eventually(t, func() bool { return get(m, "/readyz").Code == 200 }, limit, 50*time.Millisecond)
	for _, one := range getStats(t, m, "").Stuck {
		require.NotEqual(t, "topic", one.What, one)
	}
}
