package buffstreams

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/pool"
)

// beginsClosing is beginClosing of a call that ends with the test, however that ends.
func beginsClosing(t *testing.T, m *Manager) (c *closingListener, first bool) {
	t.Helper()
	c, first = m.beginClosing(anyPort)
	if first {
		t.Cleanup(func() {
			_ = m.closeListener(context.Background(), c.opening, &leftovers{failures: &m.failures})
			close(c.done)
		})
	}
	return c, first
}

// TestCloseListener_OneCallHasTheListener: others that come before it is closed wait for that call, whatever each has done by then,
// and not for one that finds nothing. What is opened meanwhile is closed by another call.
func TestCloseListener_OneCallHasTheListener(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	_, err := m.listen(anyPort)
	require.NoError(t, err)
	first, closes := beginsClosing(t, m)
	require.True(t, closes)
	same, closes := beginsClosing(t, m)
	require.False(t, closes)
	require.Same(t, first, same)
	_, err = m.listen(anyPort)
	require.NoError(t, err)
	other, closes := beginsClosing(t, m)
	require.True(t, closes)
	require.NotSame(t, first.opening, other.opening)
	require.Empty(t, m.listeners)
}

// TestCloseListener_LeavesToCloseWhatThatCloses: it waits for the end of the Manager's Close then.
func TestCloseListener_LeavesToCloseWhatThatCloses(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	_, err := m.listen(anyPort)
	require.NoError(t, err)
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	c, closes := m.beginClosing(anyPort)
	m.mu.Lock()
	m.closed = false // for Close
	m.mu.Unlock()
	require.False(t, closes)
	require.Equal(t, m.done, c.done)
	require.ErrorIs(t, c.err, pool.ErrNotOpened)
	require.Len(t, m.listeners, 1)
}

// TestManager_FailureToListenForgetsNoOther: an address that was closed while it could not be listened at yet may have another listener.
func TestManager_FailureToListenForgetsNoOther(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	failed := errors.New("in use")
	_, err := m.open(anyPort, func() (listener, error) {
		_, closes := beginsClosing(t, m)
		require.True(t, closes)
		_, err := m.listen(anyPort)
		require.NoError(t, err)
		return nil, failed
	})
	require.ErrorIs(t, err, failed)
	require.Len(t, m.openListeners(), 1)
}
