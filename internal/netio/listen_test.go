//go:build unix

package netio

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// abandoned makes a socket as a process that was killed leaves it behind.
func abandoned(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s.sock")
	ln, err := net.Listen("unix", path)
	require.NoError(t, err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, ln.Close())
	return path
}

func TestListen_ReplacesAUnixSocketThatIsStale(t *testing.T) {
	path := abandoned(t)
	ln, err := Listen("unix", path)
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	conn, err := net.Dial("unix", path)
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

func TestListen_KeepsAUnixSocketThatIsInUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	first, err := Listen("unix", path)
	require.NoError(t, err)
	defer func() { _ = first.Close() }()
	_, err = Listen("unix", path)
	require.Error(t, err)
	conn, err := net.Dial("unix", path)
	require.NoError(t, err, "the first one still has it")
	require.NoError(t, conn.Close())
}

func TestListen_RemovesNothingThatIsNoSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(path, []byte("data"), 0o600))
	_, err := Listen("unix", path)
	require.Error(t, err)
	kept, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "data", string(kept))
}

// TestListen_ClosesNoSocketButItsOwn: another process may have replaced it, to take its place.
func TestListen_ClosesNoSocketButItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	first, err := Listen("unix", path)
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	next, err := Listen("unix", path)
	require.NoError(t, err)
	require.NoError(t, first.Close())
	conn, err := net.Dial("unix", path)
	require.NoError(t, err, "the second one still has it")
	require.NoError(t, conn.Close())
	require.NoError(t, next.Close())
	_, err = os.Lstat(path)
	require.ErrorIs(t, err, os.ErrNotExist)
	again, err := Listen("unix", path)
	require.NoError(t, err)
	require.Error(t, next.Close(), "it was closed")
	_, err = os.Lstat(path)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}
