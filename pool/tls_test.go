package pool

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, last: time.Now().UnixNano()}
	a.key = a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	return key
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue returns a new certificate and its key.
func (a *authority) issue(name string) (certificate, key []byte) {
	a.last++
	own := a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &own.PublicKey, a.key)
	require.NoError(a.t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(own)
	require.NoError(a.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// files are one side's, in a directory of its own.
type files struct {
	TLSFiles
	t   testing.TB
	age time.Duration
}

func newFiles(t testing.TB, a, peers *authority, name string) *files {
	dir := t.TempDir()
	f := &files{t: t, TLSFiles: TLSFiles{
		Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem"),
	}}
	f.renew(a, name)
	f.write(f.CA, peers.pem())
	return f
}

func (f *files) renew(a *authority, name string) {
	certificate, key := a.issue(name)
	f.write(f.Certificate, certificate)
	f.write(f.Key, key)
}

// write makes sure that the file's time changes, whatever the file system's clock.
func (f *files) write(name string, data []byte) {
	require.NoError(f.t, os.WriteFile(name, data, 0o600))
	f.age += time.Second
	at := time.Now().Add(f.age - time.Hour)
	require.NoError(f.t, os.Chtimes(name, at, at))
}

func listenTLS(t *testing.T, cfg AckedConfig) (*Manager, Target) {
	m := newTestManager(t, ManagerConfig{Acked: cfg})
	e, err := m.Endpoint(Target{Network: "tcp", Address: "127.0.0.1:0", TLS: true})
	require.NoError(t, err)
	c := newConsumer(e, "a")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // ends with stop
		for {
			for d, ok := c.member.Take(); ok; d, ok = c.member.Take() {
				c.member.Settle(d)
			}
			select {
			case <-c.wake:
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		wg.Wait()
		c.member.Leave()
	})
	return m, Target{Network: "tcp", Address: e.Addr().String(), TLS: true}
}

func TestLessThanTLS13IsNotSpoken(t *testing.T) {
	server, client := testTLS(t)
	old := client.Clone()
	old.MaxVersion = tls.VersionTLS12
	lax := func() *tls.Config {
		c := server.Clone()
		c.MinVersion = tls.VersionTLS10
		return c
	}
	chosen := lax()
	chosen.Certificates = nil
	chosen.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return lax(), nil }
	older := lax()
	older.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return old, nil }
	for name, cfg := range map[string]*tls.Config{"by MinVersion": lax(), "by GetConfigForClient": chosen, "by its MaxVersion": older} {
		_, target := listenTLS(t, AckedConfig{ServerTLS: cfg})
		_, err := tls.Dial("tcp", target.Address, old)
		require.Error(t, err, name)
		conn, err := tls.Dial("tcp", target.Address, client)
		if cfg == older {
			require.Error(t, err, name)
			continue
		}
		require.NoError(t, err, name)
		require.EqualValues(t, tls.VersionTLS13, conn.ConnectionState().Version)
		require.NoError(t, conn.Close())

		l := startListener(t, ListenerConfig{TLSConfig: cfg, Callback: func([]byte) error { return nil }})
		_, err = tls.Dial("tcp", l.Addr().String(), old)
		require.Error(t, err, name)
	}
	require.EqualValues(t, tls.VersionTLS10, lax().MinVersion, "the caller's own is not changed")

	ln, err := tls.Listen("tcp", "127.0.0.1:0", func() *tls.Config {
		c := server.Clone()
		c.MaxVersion = tls.VersionTLS12
		return c
	}())
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	go func() { // ends when ln is closed
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
	}()
	lenient := client.Clone()
	lenient.MinVersion = tls.VersionTLS10
	_, err = DialTCP(WriterConfig{Address: ln.Addr().String(), TLSConfig: lenient})
	require.ErrorContains(t, err, "version")

	for _, cfg := range []AckedConfig{{ClientTLS: old}, {ServerTLS: old}} {
		_, err := NewManager(ManagerConfig{Acked: cfg})
		require.ErrorContains(t, err, "TLS 1.3")
	}
	require.ErrorContains(t, WriterConfig{Address: "a:1", TLSConfig: old}.Validate(), "WriterConfig.TLSConfig")
	require.ErrorContains(t, ListenerConfig{Address: "127.0.0.1:1", TLSConfig: old, Callback: func([]byte) error { return nil }}.Validate(),
		"ListenerConfig.TLSConfig")
}

// The files change while the endpoint, the link and the Managers stay: the next connections use what is there then.
func TestCertificatesAreRenewedWithoutARestart(t *testing.T) {
	servers, clients := newAuthority(t), newAuthority(t)
	serverFiles, clientFiles := newFiles(t, servers, clients, "server"), newFiles(t, clients, servers, "orders")
	complaints := make(chan error, 1<<16)
	serverFiles.OnError = func(err error) { complaints <- err }
	server, err := serverFiles.Server()
	require.NoError(t, err)
	client, err := clientFiles.Client()
	require.NoError(t, err)
	seen := make(chan *x509.Certificate, 1<<16)
	receiver, target := listenTLS(t, AckedConfig{ServerTLS: server, Authenticate: func(ctx context.Context, p Peer) (string, error) {
		seen <- p.Certificate()
		return CertificateName(ctx, p)
	}})
	dialed := make(chan net.Conn, 1<<16) // more than are dialed until time is out
	sender := newTestManager(t, ManagerConfig{
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			dialed <- conn
			return conn, err
		},
		Acked: AckedConfig{ClientTLS: client, Retry: &RetryConfig{InitialInterval: time.Millisecond, MaxInterval: time.Millisecond}},
	})
	l := linkTo(t, sender, target)
	send := func() *x509.Certificate { // over a new connection
		_, err := l.Publish(context.Background(), "a", batchOf(t, "x"), session.Handled, 20*time.Second)
		require.NoError(t, err)
		certificate := receive(t, seen)
		for l.Connected() { // nothing is pending: it does not come back by itself
			select {
			case conn := <-dialed:
				_ = conn.Close()
			default:
				runtime.Gosched()
			}
		}
		return certificate
	}
	serverSerial := func() string {
		roots := x509.NewCertPool()
		roots.AddCert(servers.cert)
		conn, err := tls.Dial("tcp", target.Address, &tls.Config{RootCAs: roots}) // that it shows none is refused later
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}

	first, firstServer := send(), serverSerial()
	require.Equal(t, "orders", first.Subject.CommonName)
	clientFiles.renew(clients, "orders")
	second := send()
	require.NotEqual(t, first.SerialNumber, second.SerialNumber, "the client's certificate was not renewed")

	certificate, key := servers.issue("server")
	serverFiles.write(serverFiles.Certificate, certificate) // its key is still to come
	require.Equal(t, firstServer, serverSerial(), "half of a pair must change nothing")
	require.ErrorContains(t, receive(t, complaints), "TLSFiles")
	serverFiles.write(serverFiles.Key, key)
	require.NotEqual(t, firstServer, serverSerial(), "the server's certificate was not renewed")
	send()

	clients = newAuthority(t) // the old one is not trusted any more
	serverFiles.write(serverFiles.CA, clients.pem())
	_, err = l.Publish(context.Background(), "a", batchOf(t, "late"), 1, time.Millisecond)
	require.ErrorIs(t, err, ErrTimeout)
	clientFiles.renew(clients, "orders") // the same principal: another would not get the publisher's id
	require.NoError(t, send().CheckSignatureFrom(clients.cert))
	_ = receiver
}

func TestTLSFilesAreValidated(t *testing.T) {
	a := newAuthority(t)
	good := newFiles(t, a, a, "x").TLSFiles
	for name, f := range map[string]func(TLSFiles) (*tls.Config, error){"Server": TLSFiles.Server, "Client": TLSFiles.Client} {
		_, err := f(good)
		require.NoError(t, err, name)
		missing := good
		missing.Certificate = filepath.Join(t.TempDir(), "none")
		_, err = f(missing)
		require.Error(t, err, name)
		half := good
		half.Key = ""
		_, err = f(half)
		require.ErrorContains(t, err, "need", name)
		noCA := good
		noCA.CA = good.Key
		_, err = f(noCA)
		require.ErrorContains(t, err, "CA", name)
	}
}

// A resumed session would not show whether the peer's certificate still holds.
func TestListenersResumeNoSessions(t *testing.T) {
	server, client := testTLS(t)
	_, target := listenTLS(t, AckedConfig{ServerTLS: server})
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	sender := newTestManager(t, ManagerConfig{Acked: AckedConfig{ClientTLS: client}})
	l := linkTo(t, sender, target)
	_, err := publishOne(t, l, "x")
	require.NoError(t, err)
	_, held := client.ClientSessionCache.Get("127.0.0.1")
	require.False(t, held)
}

func TestAServerThatCannotProveItselfFailsPublishAtOnce(t *testing.T) {
	server, _ := testTLS(t)
	_, target := listenTLS(t, AckedConfig{ServerTLS: server})
	l := linkTo(t, newTestManager(t, ManagerConfig{}), target)
	_, err := publishOne(t, l, "x")
	var unproved *tls.CertificateVerificationError
	require.ErrorAs(t, err, &unproved)
	require.Equal(t, 1, l.Pending())
}
