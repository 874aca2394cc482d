package pool

import (
	"crypto/tls"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestWriter_TLSFromTheFirstByte(t *testing.T) {
	testkit.CheckLeaks(t)
	server, client := testkit.SelfSignedTLS(t)
	got := make(chan string, 1)
	l := startListener(t, ListenerConfig{Callback: collect(got), TLSConfig: server})
	w := dialWriterTo(t, l, WriterConfig{TLSConfig: client})
	_, err := w.Write([]byte("secret"))
	require.NoError(t, err)
	assert.Equal(t, "secret", testkit.Receive(t, got))
	require.NoError(t, w.Close())

	_, err = DialTCP(WriterConfig{Address: l.Addr().String(), TLSConfig: &tls.Config{}})
	var unknown *tls.CertificateVerificationError
	assert.ErrorAs(t, err, &unknown)
}

func TestWriter_LessThanTLS13IsNotSpoken(t *testing.T) {
	server, client := testkit.SelfSignedTLS(t)
	old, lax := server.Clone(), client.Clone()
	old.MaxVersion, lax.MinVersion = tls.VersionTLS12, tls.VersionTLS10
	ln, err := tls.Listen("tcp", "127.0.0.1:0", old)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	ended := make(chan error, 1)
	go func() { // ends with the handshake
		conn, err := ln.Accept()
		if err == nil {
			err = conn.(*tls.Conn).Handshake()
			_ = conn.Close()
		}
		ended <- err
	}()
	_, err = DialTCP(WriterConfig{Address: ln.Addr().String(), TLSConfig: lax})
	require.ErrorContains(t, err, "version")
	require.ErrorContains(t, <-ended, "version")
	assert.EqualValues(t, tls.VersionTLS10, lax.MinVersion, "the caller's own is not changed")
}

func TestListener_TLSHandshakeMustEndInTime(t *testing.T) {
	server, _ := testkit.SelfSignedTLS(t)
	synctest.Test(t, func(t *testing.T) {
		socket, log := testkit.NewPipeListener(), testkit.NewLog()
		l := startListener(t, ListenerConfig{Listen: socket.Listen, Logger: log, Callback: ignore, TLSConfig: server})
		silent := socket.Connect()
		start := time.Now()
		_, err := silent.Read(make([]byte, 1))
		assert.Error(t, err)
		assert.Equal(t, defaultHandshakeTimeout, time.Since(start))
		assert.ErrorContains(t, log.Next(t, "info").Fields["err"].(error), "handshake")

		socket.Connect()
		synctest.Wait()
		start = time.Now()
		require.NoError(t, l.Close(), "a handshake does not hold up Close")
		assert.Zero(t, time.Since(start))
	})
}

func TestListener_LessThanTLS13IsNotSpoken(t *testing.T) {
	testkit.CheckLeaks(t)
	lax, old := testkit.SelfSignedTLS(t)
	lax.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS12
	l := startListener(t, ListenerConfig{TLSConfig: lax, Callback: ignore})
	_, err := tls.Dial("tcp", l.Addr().String(), old)
	require.ErrorContains(t, err, "version")
}

func TestListener_CloseKeepsWhatIsInFlightUnderTLS(t *testing.T) {
	testkit.CheckLeaks(t)
	server, client := testkit.SelfSignedTLS(t)
	entered, release := make(chan struct{}), make(chan struct{})
	var got []string
	l := startListener(t, ListenerConfig{TLSConfig: server, Callback: func(m []byte) error {
		if len(got) == 0 {
			close(entered)
			<-release
		}
		got = append(got, string(m))
		return nil
	}})
	w := dialWriterTo(t, l, WriterConfig{TLSConfig: client})
	writeNumbers(t, w, 0, 50000)
	require.NoError(t, w.Flush(t.Context()))
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- l.Close() }() // ends with Close
	<-l.closing
	close(release)
	require.NoError(t, <-closed)
	assert.Len(t, got, 50000)
}
