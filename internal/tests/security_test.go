package tests

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
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

func TestATokenThatIsRefusedIsSaidAtOnceAndLosesNothing(t *testing.T) {
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

func TestNobodyIsLetInWithoutAToken(t *testing.T) {
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

func TestATokenDoesNotGoOverPlaintext(t *testing.T) {
	ln, topic := listenPeer(t)
	err := sender(t, buffstreams.AckedConfig{Token: buffstreams.StaticToken("hunter2")}, nil).Publish(topic, newMessage("x"))
	require.ErrorIs(t, err, buffstreams.ErrInsecureToken)
	require.ErrorContains(t, err, "tls://")
	require.NotContains(t, err.Error(), "hunter2")
	require.NoError(t, ln.(*net.TCPListener).SetDeadline(time.Now()))
	_, err = ln.Accept()
	require.Error(t, err, "it was dialed")
}

// only allows each principal its own topic.
func only(allowed map[string]string) func(context.Context, buffstreams.Access) error {
	return func(_ context.Context, a buffstreams.Access) error {
		if topic, known := allowed[a.Principal]; a.Action == buffstreams.ActionSubscribe || known && topic == a.Topic {
			return nil
		}
		return errors.New("not on the list")
	}
}

func TestAForbiddenTopicFailsAtOnceAndHoldsUpNoOther(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		Authenticate: buffstreams.Tokens(map[string]string{"o": "orders", "b": "billing"}),
		Authorize:    only(map[string]string{"orders": "orders", "billing": "billing"}),
	}})
	sub := h.newSubscriber(t, nil)
	orders, billing := subscribe(t, sub, h.topic("orders")), subscribe(t, sub, h.topic("billing"))
	lost := make(chan string, 10)
	pub := sender(t, bearer("o"), func(c *buffstreams.PublisherConfig) {
		c.OnFailure = func(topic string, encoded []byte, err error) {
			require.ErrorIs(t, err, buffstreams.ErrForbidden)
			require.Contains(t, string(encoded), "stolen")
			lost <- topic
		}
	})
	require.NoError(t, pub.Publish(h.topic("orders"), newMessage("mine")))
	err := pub.Publish(h.topic("billing"), newMessage("stolen"))
	require.ErrorIs(t, err, buffstreams.ErrForbidden)
	require.ErrorContains(t, err, "AckedConfig.Authorize")
	require.Equal(t, "billing", <-lost, "the failure hook is told")
	require.NoError(t, pub.Publish(h.topic("orders"), newMessage("mine too")))
	require.Equal(t, []string{"mine", "mine too"}, receiveAcked(t, orders, 2))
	require.NoError(t, sender(t, bearer("b"), nil).Publish(h.topic("billing"), newMessage("a bill")))
	require.Equal(t, []string{"a bill"}, receiveAcked(t, billing, 1))

	p := dialPeer(t, h.address)
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame, Token: []byte("o")})
	take[*wire.Welcome](p)
	p.send(opening(func(o *wire.Open) { o.Topic = "billing" }))
	outcome, code := documentedFault(t, "topic that Authorize refuses")
	require.Equal(t, "Opened", outcome)
	require.Equal(t, code, take[*wire.Opened](p).Code)
	p.opens(opening(func(o *wire.Open) { o.Topic = "orders" }))
}

func TestWhatAnOutboxMayNotDeliverStaysInIt(t *testing.T) {
	var open atomic.Bool
	asked := make(chan buffstreams.Access, 10)
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Authorize: func(_ context.Context, a buffstreams.Access) error {
		if a.Action == buffstreams.ActionPublish && !open.Load() {
			asked <- a
			return errors.New("not yet")
		}
		return nil
	}}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	dir := t.TempDir()
	ob, err := outbox.Open(outbox.Config{Dir: dir})
	require.NoError(t, err)
	pub := stored(t, ob, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(10)...))
	require.Equal(t, "a", (<-asked).Topic)
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())
	open.Store(true)
	pub = stored(t, openOutbox(t, dir), nil)
	require.Equal(t, payloads(newMessages(10)), receiveAcked(t, messages, 10))
	drain(t, pub)
}

func TestSubscribingIsAuthorized(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Authorize: func(_ context.Context, a buffstreams.Access) error {
		if a.Action == buffstreams.ActionSubscribe && a.Topic != "mine" {
			return errors.New("not mine")
		}
		return nil
	}}})
	sub := h.newSubscriber(t, nil)
	_, err := sub.Subscribe(context.Background(), h.topic("theirs"))
	require.ErrorIs(t, err, buffstreams.ErrForbidden)
	require.ErrorContains(t, err, "not mine")
	require.ErrorIs(t, sub.SubscribeInitialize(h.topic("theirs")), buffstreams.ErrForbidden)
	messages := subscribe(t, sub, h.topic("mine"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("mine"), newMessage("x")))
	receiveAcked(t, messages, 1)
}

func TestAPublisherIDBelongsToItsPrincipal(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		Authenticate: buffstreams.Tokens(map[string]string{"a": "alice", "b": "bob"}),
	}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	greet := func(token string) *wirePeer {
		p := dialPeer(t, h.address)
		p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame, Token: []byte(token)})
		take[*wire.Welcome](p)
		return p
	}
	alice := greet("a").opens(opening(nil)).credited()
	bob := greet("b") // knows her id and secret
	outcome, code := documentedFault(t, "publisher id of another principal")
	require.Equal(t, "Opened", outcome)
	for _, epoch := range []uint64{5, 6} {
		bob.send(opening(func(o *wire.Open) { o.Epoch = epoch }))
		require.Equal(t, code, take[*wire.Opened](bob).Code)
	}
	bob.opens(opening(func(o *wire.Open) { o.Publisher = bytes.Repeat([]byte{9}, 16) })) // one of his own is all right
	alice.publish(1, false, envelope(t, "1"))
	receivePayload(t, messages, "1").Ack()
	alice.until(func() bool { return alice.settled[1] })
}

func TestConnectionsBeyondTheLimitAreToldSo(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxConnections: 1, MaxConnectionsPerHost: 1}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	first := greetedPeer(t, h.address)
	outcome, code := documentedFault(t, "more connections than the listener takes, in all or from an address")
	require.Equal(t, "Failure", outcome)
	p := dialPeer(t, h.address)
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame})
	got, failed := p.ended()
	require.True(t, failed)
	require.Equal(t, code, got)

	pub := sender(t, buffstreams.AckedConfig{}, nil) // waits for a place
	result := later(func() error { return pub.Publish(h.topic("a"), newMessage("x")) })
	first.cut()
	require.NoError(t, requireResult(t, result))
	receiveAcked(t, messages, 1)
}

func TestTooManyPingsAreAFault(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	require.NoError(t, h.newSubscriber(t, nil).SubscribeInitialize(h.topic("a")))
	outcome, code := documentedFault(t, "more than 1,000 pings in a second")
	require.Equal(t, "Failure", outcome)
	p := greetedPeer(t, h.address)
	ping := sealed(payloadOf(t, &wire.Ping{Id: 1}))
	go func() { // ends with the connection
		for {
			if _, err := p.conn.Write(bytes.Repeat(ping, 2000)); err != nil {
				return
			}
		}
	}()
	got, failed := p.ended()
	require.True(t, failed)
	require.Equal(t, code, got)
}

func TestAnAllowListIsCheckedAgainstWhatIsConnectedTo(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	_, port, err := net.SplitHostPort(h.address)
	require.NoError(t, err)
	allowing := func(prefix string, spoken buffstreams.Wire) *buffstreams.Publisher {
		return sender(t, buffstreams.AckedConfig{}, func(c *buffstreams.PublisherConfig) {
			c.ManagerConfig.DialAllow = &pool.DialAllow{Prefixes: []netip.Prefix{netip.MustParsePrefix(prefix)}}
			if c.Wire = spoken; spoken == buffstreams.WireBuffStreams {
				c.Confirm = buffstreams.ConfirmEnqueued
			}
		})
	}
	denying := allowing("10.0.0.0/8", buffstreams.WireAcked)
	var failed *buffstreams.PublishError
	for _, topic := range []string{
		h.topic("a"), "[::ffff:127.0.0.1]:" + port + "/a", "0.0.0.0:" + port + "/a", "unix:///tmp/x.sock#a", "169.254.169.254:80/a",
	} {
		err := denying.Publish(topic, newMessage("x"))
		require.ErrorIs(t, err, buffstreams.ErrDialDenied, topic)
		require.ErrorAs(t, err, &failed)
		require.Len(t, failed.NotSent, 1, topic)
	}
	require.ErrorIs(t, denying.Publish("localhost:"+port+"/a", newMessage("x")), buffstreams.ErrDialDenied)
	require.ErrorIs(t, allowing("10.0.0.0/8", buffstreams.WireBuffStreams).Publish(h.address, newMessage("x")), buffstreams.ErrDialDenied)

	permitting := allowing("127.0.0.0/8", buffstreams.WireAcked)
	for i, topic := range []string{h.topic("a"), "[::ffff:127.0.0.1]:" + port + "/a"} {
		require.NoError(t, permitting.Publish(topic, newMessage(fmt.Sprint(i))))
		require.Equal(t, []string{fmt.Sprint(i)}, receiveAcked(t, messages, 1))
	}
}

func TestPlaintextBeyondLoopbackNeedsConsent(t *testing.T) {
	for address, open := range map[string]bool{
		":0": false, "0.0.0.0:0": false, "[::]:0": false, "192.0.2.1:0": false, "[fe80::1%lo]:0": false, "[::ffff:192.0.2.1]:0": false,
		"127.0.0.1:0": true, "127.8.8.8:0": true, "[::1]:0": true, "[::ffff:127.0.0.1]:0": true, "localhost:0": true,
		"unix://" + filepath.Join(t.TempDir(), "s.sock"): true,
	} {
		if strings.Contains(address, "::1]") && !hasIPv6() {
			continue
		}
		for _, spoken := range []buffstreams.Wire{buffstreams.WireAcked, buffstreams.WireBuffStreams} {
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Wire: spoken}, nil)
			require.NoError(t, err)
			_, err = sub.Subscribe(context.Background(), address)
			if open {
				require.NoError(t, err, address)
			} else {
				require.ErrorIs(t, err, netio.ErrInsecureAddress, address)
				require.ErrorContains(t, err, "Insecure: true")
			}
			require.NoError(t, sub.Close())
		}
	}
	// A name is judged by where it led to, a handed-over socket by where it is.
	outside, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	for _, insecure := range []bool{false, true} {
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ManagerConfig: buffstreams.ManagerConfig{
			Listen: func(string, string) (net.Listener, error) { return wrapped{outside}, nil },
			Acked:  buffstreams.AckedConfig{Insecure: insecure},
		}}, nil)
		require.NoError(t, err)
		_, err = sub.Subscribe(context.Background(), "localhost:0")
		require.Equal(t, insecure, err == nil, "%v", err)
		require.NoError(t, sub.Close())
		outside, err = net.Listen("tcp", ":0")
		require.NoError(t, err)
	}
	require.NoError(t, outside.Close())
}

// wrapped is a listener whose address has a type of its own.
type wrapped struct{ net.Listener }

type wrappedAddr struct{ net.Addr }

func (w wrapped) Addr() net.Addr { return wrappedAddr{w.Listener.Addr()} }

func hasIPv6() bool {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err == nil {
		_ = ln.Close()
	}
	return err == nil
}

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

func TestMutualTLS(t *testing.T) {
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

// A peer of the plain wire can be known by its certificate only, and must not come in beside Authenticate.
func TestPlainPeersAreAuthenticated(t *testing.T) {
	a := newAuthority(t)
	serve := func(authenticate func(context.Context, buffstreams.Peer) (string, error)) (string, <-chan string) {
		h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
			ServerTLS: &tls.Config{
				Certificates: []tls.Certificate{a.issue("server")}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: a.roots,
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
		cfg := a.client().ClientTLS
		if name != "" {
			cfg = a.client(a.issue(name)).ClientTLS
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

// captured is a logger that keeps everything.
type captured struct {
	mu  *sync.Mutex
	all *bytes.Buffer
}

func (c captured) line(msg string, err error, fields watermill.LogFields) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = fmt.Fprintf(c.all, "%s|%v|%v\n", msg, err, fields)
}
func (c captured) Error(msg string, err error, f watermill.LogFields) { c.line(msg, err, f) }
func (c captured) Info(msg string, f watermill.LogFields)             { c.line(msg, nil, f) }
func (c captured) Debug(msg string, f watermill.LogFields)            { c.line(msg, nil, f) }
func (c captured) Trace(msg string, f watermill.LogFields)            { c.line(msg, nil, f) }
func (c captured) With(watermill.LogFields) watermill.LoggerAdapter   { return c }
func (c captured) holds(text string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Contains(c.all.String(), text)
}

func TestLogsHoldNoSecretsAndNoPayloads(t *testing.T) {
	log := captured{new(sync.Mutex), new(bytes.Buffer)}
	const token, payload, forged = "tok-SECRET-1", "payload-SECRET-2", "\nFORGED LINE"
	h := newHouse(t, buffstreams.ManagerConfig{Logger: log, Acked: buffstreams.AckedConfig{
		Authenticate: func(_ context.Context, p buffstreams.Peer) (string, error) {
			if p.Token != token {
				return "", fmt.Errorf("the agent %s is unknown", p.Agent) // a careless hook
			}
			return "orders" + forged, nil
		},
		Authorize: func(_ context.Context, a buffstreams.Access) error {
			if strings.HasPrefix(a.Topic, "forbidden") {
				return errors.New("no" + forged)
			}
			return nil
		},
	}})
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: h.manager, MaxAttempts: 1, NackResendSleep: buffstreams.NoSleep}, log)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sub.Close()) })
	messages := subscribe(t, sub, h.topic("a"))
	with := func(token string) *buffstreams.Publisher {
		cfg := buffstreams.PublisherConfig{CloseTimeout: time.Millisecond, Confirm: buffstreams.ConfirmHandled}
		cfg.ManagerConfig = buffstreams.ManagerConfig{Logger: log, Acked: quick(bearer(token))}
		pub, err := buffstreams.NewPublisher(cfg, log)
		require.NoError(t, err)
		t.Cleanup(func() { _ = pub.Close() })
		return pub
	}
	good := with(token)
	later := later(func() error { return good.Publish(h.topic("a"), newMessage(payload)) })
	receive(t, messages).Nack() // fails for good
	require.Error(t, requireResult(t, later))
	require.ErrorIs(t, with("wrong-SECRET-3").Publish(h.topic("a"), newMessage(payload)), buffstreams.ErrUnauthenticated)
	require.ErrorIs(t, good.Publish(h.topic("forbidden"), newMessage(payload)), buffstreams.ErrForbidden)

	p := dialPeer(t, h.address) // lies in everything that it may say
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame, Token: []byte("lie-SECRET-4"), Agent: "x" + forged})
	p.ended()
	p = dialPeer(t, h.address)
	p.send(&wire.Hello{Version: 1, MaxFrame: leastFrame, Token: []byte(token), Agent: "x" + forged})
	take[*wire.Welcome](p)
	secret := bytes.Repeat([]byte("s"), 16)
	p.send(opening(func(o *wire.Open) { o.Topic, o.Secret = "forbidden"+forged, secret }))
	take[*wire.Opened](p)
	s := p.opens(opening(func(o *wire.Open) { o.Topic, o.Secret = "a", secret })).credited()
	s.publish(1, false, []byte("\xff\xffundecodable-SECRET-5"))
	s.until(func() bool { return len(s.rejects) > 0 })
	s.send(&wire.Failure{Code: wire.Code_CODE_FAILED, Reason: "x" + forged})
	p.ended()

	require.Eventually(t, func() bool { return log.holds("the peer gave up") }, patience, time.Millisecond)
	for _, said := range []string{"not authenticated", "may not publish", "refused by the peer", "rejected"} {
		require.True(t, log.holds(said), "the test did not come to: %s\n%s", said, log.all)
	}
	for _, never := range []string{"SECRET", forged, string(secret)} {
		require.False(t, log.holds(never), "%q is in the log:\n%s", never, log.all)
	}
}

func TestLimitsOfStateRefuseAndGoOn(t *testing.T) {
	outcome, code := documentedFault(t, "more publishers, streams or topics than the listener takes")
	require.Equal(t, "Opened", outcome)
	for name, c := range map[string]struct {
		limits buffstreams.AckedConfig
		more   func(*wire.Open)
	}{
		"publishers": {buffstreams.AckedConfig{MaxPublishers: 1}, func(o *wire.Open) { o.Publisher = bytes.Repeat([]byte{9}, 16) }},
		"streams":    {buffstreams.AckedConfig{MaxStreams: 1}, func(o *wire.Open) { o.Stream = 9 }},
		"topics":     {buffstreams.AckedConfig{MaxTopics: 1}, func(o *wire.Open) { o.Topic = "b" }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{Acked: c.limits})
			require.NoError(t, h.newSubscriber(t, nil).SubscribeInitialize(h.topic("a")))
			first := greetedPeer(t, h.address).opens(opening(nil)).credited()
			other := greetedPeer(t, h.address)
			for range 3 {
				other.send(opening(func(o *wire.Open) { o.Handle = 8; c.more(o) }))
				opened := take[*wire.Opened](other)
				require.Equal(t, code, opened.Code)
				require.Contains(t, opened.Reason, name)
			}
			first.publish(1, false, envelope(t, "x"))
			first.until(func() bool { return first.next == 2 })
		})
	}
}

// A receiver must not learn what it could pose with as its sender elsewhere.
func TestAnOutboxHasAnIDForEachDestination(t *testing.T) {
	dir := t.TempDir()
	known := map[string]*wire.Open{}
	var listeners []net.Listener
	var topics []string
	for range 2 {
		ln, topic := listenPeer(t)
		listeners, topics = append(listeners, ln), append(topics, topic)
	}
	for range 2 { // and they stay the same across restarts
		ob, err := outbox.Open(outbox.Config{Dir: dir})
		require.NoError(t, err)
		pub := stored(t, ob, nil)
		for i, topic := range topics {
			require.NoError(t, pub.Publish(topic, newMessage("x")))
			open := acceptDesk(t, listeners[i]).open
			id, secret := ob.ID(), ob.Secret()
			require.NotEqual(t, id[:], open.Publisher)
			require.NotEqual(t, secret[:], open.Secret)
			if before := known[topic]; before != nil {
				require.Equal(t, before.Publisher, open.Publisher)
				require.Equal(t, before.Secret, open.Secret)
				require.Greater(t, open.Epoch, before.Epoch)
			}
			known[topic] = open
		}
		require.NotEqual(t, known[topics[0]].Publisher, known[topics[1]].Publisher)
		require.NotEqual(t, known[topics[0]].Secret, known[topics[1]].Secret)
		require.NoError(t, pub.Close())
		require.NoError(t, ob.Close())
	}
}

func TestARefusedAddressKeepsNoOtherFromBeingFlushed(t *testing.T) {
	refusing := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Authenticate: buffstreams.Tokens(nil)}})
	require.NoError(t, refusing.newSubscriber(t, nil).SubscribeInitialize(refusing.topic("a")))
	slow := newHouse(t, buffstreams.ManagerConfig{})
	pub := sender(t, buffstreams.AckedConfig{}, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmEnqueued })
	require.NoError(t, pub.Publish(slow.topic("a"), newMessage("x")))
	require.NoError(t, pub.Publish(refusing.topic("a"), newMessage("x")))
	result := later(func() error { return pub.Flush(context.Background()) })
	require.Eventually(t, func() bool {
		return errors.Is(pub.Publish(refusing.topic("a"), newMessage("x")), buffstreams.ErrUnauthenticated)
	}, patience, time.Millisecond)
	require.Never(t, func() bool { return len(result) > 0 }, 100*time.Millisecond, time.Millisecond, "it did not wait for the other")
	messages := subscribe(t, slow.newSubscriber(t, nil), slow.topic("a"))
	receiveAcked(t, messages, 1)
	require.ErrorIs(t, requireResult(t, result), buffstreams.ErrUnauthenticated)
}
