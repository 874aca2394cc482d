package pool

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// closeTwice calls a Close twice side by side: both return the same when want is over.
func closeTwice(t *testing.T, want time.Duration, end func() error) {
	t.Helper()
	start := time.Now()
	results := make(chan error, 2)
	for range 2 {
		go func() { results <- end() }() // ends with Close
		synctest.Wait()                  // the first waits
	}
	err := <-results
	require.Error(t, err)
	assert.Equal(t, err, <-results)
	assert.Equal(t, want, time.Since(start))
	assert.Equal(t, err, end())
}

func TestWriter_CloseSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		w := dialTest(t, WriterConfig{Address: "peer:1", Dial: network.Dial, CloseTimeout: 3 * time.Second})
		_, err := w.Write([]byte("nobody reads this"))
		require.NoError(t, err)
		closeTwice(t, 3*time.Second, w.Close)
	})
}

func TestManager_CloseSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := testkit.NewNetwork()
		m, err := NewManager(ManagerConfig{Dial: network.Dial})
		require.NoError(t, err)
		require.NoError(t, m.Dial(WriterConfig{Address: "peer:1", CloseTimeout: 3 * time.Second}))
		_, err = m.Write("peer:1", []byte("nobody reads this"))
		require.NoError(t, err)
		closeTwice(t, 3*time.Second, m.Close)
	})
}

func TestListener_CloseSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln, stuck := testkit.NewPipeListener(), make(chan struct{})
		l, err := ListenTCP(ListenerConfig{
			Address: "peer:1", Insecure: true, Listen: ln.Listen, CloseTimeout: 3 * time.Second,
			Callback: func([]byte) error { <-stuck; return nil },
		})
		require.NoError(t, err)
		require.NoError(t, l.StartListeningAsync())
		conn := ln.Connect()
		_, err = conn.Write(peerFrame(width4096, []byte("a callback that does not return")))
		require.NoError(t, err)
		closeTwice(t, 3*time.Second+abortGrace, l.Close)
		close(stuck)
		require.NoError(t, conn.Close())
	})
}
