package buffstreams

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

func listenTLS(t *testing.T, cfg AckedConfig) (*Manager, netio.Target) {
	m := newTestManager(t, ManagerConfig{Acked: cfg})
	e, err := m.listen(netio.Target{Network: "tcp", Address: "127.0.0.1:0", TLS: true})
	require.NoError(t, err)
	c := newConsumer(e, "a")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // ends with stop
		for {
			for d, _, ok := c.Take(); ok; d, _, ok = c.Take() {
				c.Settle(d)
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
		c.Leave()
	})
	return m, netio.Target{Network: "tcp", Address: e.Addr().String(), TLS: true}
}

func TestTLS_LessThan13IsRefused(t *testing.T) {
	server, client := testkit.SelfSignedTLS(t)
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

		l, err := pool.ListenTCP(pool.ListenerConfig{Address: "127.0.0.1:0", TLSConfig: cfg, Callback: func([]byte) error { return nil }})
		require.NoError(t, err)
		require.NoError(t, l.StartListeningAsync())
		t.Cleanup(func() { _ = l.Close() })
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
	_, err = pool.DialTCP(pool.WriterConfig{Address: ln.Addr().String(), TLSConfig: lenient})
	require.ErrorContains(t, err, "version")

	for _, cfg := range []AckedConfig{{ClientTLS: old}, {ServerTLS: old}} {
		_, err := NewManager(ManagerConfig{Acked: cfg})
		require.ErrorContains(t, err, "TLS 1.3")
	}
	require.ErrorContains(t, pool.WriterConfig{Address: "a:1", TLSConfig: old}.Validate(), "WriterConfig.TLSConfig")
	require.ErrorContains(t, pool.ListenerConfig{Address: "127.0.0.1:1", TLSConfig: old, Callback: func([]byte) error { return nil }}.Validate(),
		"ListenerConfig.TLSConfig")
}

// The files change while the endpoint, the link and the Managers stay: the next connections use what is there then.
func TestTLSFiles_RenewedWithoutARestart(t *testing.T) {
	servers, clients := testkit.NewAuthority(t), testkit.NewAuthority(t)
	serverFiles, clientFiles := testkit.NewTLSFiles(t, servers, clients, "server"), testkit.NewTLSFiles(t, clients, servers, "orders")
	complaints := make(chan error, 1<<16)
	serverTLS := filesOf(serverFiles)
	serverTLS.OnError = func(err error) { complaints <- err }
	server, err := serverTLS.Server()
	require.NoError(t, err)
	client, err := filesOf(clientFiles).Client()
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
		Acked: AckedConfig{ClientTLS: client, Reconnect: &ReconnectConfig{InitialInterval: time.Millisecond, MaxInterval: time.Millisecond}},
	})
	l := senderTo(t, sender, target)
	send := func() *x509.Certificate { // over a new connection
		_, _, err := l.Publish(context.Background(), "a", acktest.BatchOf(t, "x"), session.Handled, 20*time.Second)
		require.NoError(t, err)
		certificate := testkit.Receive(t, seen)
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
		roots.AddCert(servers.Cert)
		conn, err := tls.Dial("tcp", target.Address, &tls.Config{RootCAs: roots}) // that it shows none is refused later
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}

	first, firstServer := send(), serverSerial()
	require.Equal(t, "orders", first.Subject.CommonName)
	clientFiles.Renew(clients, "orders")
	second := send()
	require.NotEqual(t, first.SerialNumber, second.SerialNumber, "the client's certificate was not renewed")

	certificate, key := servers.Issue("server")
	serverFiles.Write(serverFiles.Certificate, certificate) // its key is still to come
	require.Equal(t, firstServer, serverSerial(), "half of a pair must change nothing")
	require.ErrorContains(t, testkit.Receive(t, complaints), "TLSFiles")
	serverFiles.Write(serverFiles.Key, key)
	require.NotEqual(t, firstServer, serverSerial(), "the server's certificate was not renewed")
	send()

	clients = testkit.NewAuthority(t) // the old one is not trusted any more
	serverFiles.Write(serverFiles.CA, clients.PEM())
	_, _, err = l.Publish(context.Background(), "a", acktest.BatchOf(t, "late"), 1, time.Millisecond)
	require.ErrorIs(t, err, ErrTimeout)
	clientFiles.Renew(clients, "orders") // the same principal: another would not get the publisher's id
	require.NoError(t, send().CheckSignatureFrom(clients.Cert))
	_ = receiver
}

func TestTLSFiles_AreValidated(t *testing.T) {
	a := testkit.NewAuthority(t)
	good := filesOf(testkit.NewTLSFiles(t, a, a, "x"))
	for name, f := range map[string]func(TLSFiles) (*tls.Config, error){"Server": TLSFiles.Server, "Client": TLSFiles.Client} {
		_, err := f(good)
		require.NoError(t, err, name)
		missing := good
		missing.Certificate = filepath.Join(t.TempDir(), "none")
		_, err = f(missing)
		require.Error(t, err, name)
		for _, half := range []TLSFiles{{Certificate: good.Certificate}, {Key: good.Key}} {
			_, err = f(half)
			require.ErrorContains(t, err, "need", name)
		}
		noCA := good
		noCA.CA = good.Key
		_, err = f(noCA)
		require.ErrorContains(t, err, "CA", name)
	}
}

// What is wrong with changed files is told once for each change, and nothing where nothing is.
func TestTLSFiles_ComplainOnce(t *testing.T) {
	a := testkit.NewAuthority(t)
	onDisk := testkit.NewTLSFiles(t, a, a, "x")
	f, complaints := filesOf(onDisk), 0
	f.OnError = func(err error) {
		require.Error(t, err)
		complaints++
	}
	files, err := f.open()
	require.NoError(t, err)
	good := files.current()
	onDisk.Write(onDisk.CA, []byte("no certificate"))
	for range 3 {
		require.Equal(t, good, files.current())
	}
	require.Equal(t, 1, complaints)
	onDisk.Renew(a, "x")
	onDisk.Write(onDisk.CA, []byte("still no certificate"))
	require.Equal(t, good, files.current())
	require.Equal(t, 2, complaints)
	files.CA = onDisk.Certificate
	require.NotEqual(t, good, files.current())
	require.Equal(t, 2, complaints)
}

// A resumed session would not show whether the peer's certificate still holds.
func TestTLS_ListenersResumeNoSessions(t *testing.T) {
	server, client := testkit.SelfSignedTLS(t)
	_, target := listenTLS(t, AckedConfig{ServerTLS: server})
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	sender := newTestManager(t, ManagerConfig{Acked: AckedConfig{ClientTLS: client}})
	l := senderTo(t, sender, target)
	_, err := publishOne(t, l, "x")
	require.NoError(t, err)
	_, held := client.ClientSessionCache.Get("127.0.0.1")
	require.False(t, held)
}

func TestTLS_UnprovenServerFailsPublishAtOnce(t *testing.T) {
	server, _ := testkit.SelfSignedTLS(t)
	_, target := listenTLS(t, AckedConfig{ServerTLS: server})
	l := senderTo(t, newTestManager(t, ManagerConfig{}), target)
	_, err := publishOne(t, l, "x")
	var unproved *tls.CertificateVerificationError
	require.ErrorAs(t, err, &unproved)
	require.Equal(t, 1, l.Pending())
}

// filesOf are one side's files for TLSFiles.
func filesOf(f *testkit.TLSFiles) TLSFiles {
	return TLSFiles{Certificate: f.Certificate, Key: f.Key, CA: f.CA}
}
