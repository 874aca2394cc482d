//go:build unix

package outbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A mounted volume belongs to root and to the process's group. A directory that others can enter is refused.
func TestOpen_DirectoryOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a directory to another user")
	}
	root, err := os.MkdirTemp("", "outbox") // t.TempDir is not open to other users
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(root)) })
	require.NoError(t, os.Chmod(root, 0o755))
	binary, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	program := filepath.Join(root, "outbox.test")
	require.NoError(t, os.WriteFile(program, binary, 0o755))
	const user, group = 4710, 4711
	for mode, want := range map[uint32]int{0o2770: 0, 0o2775: 4} {
		dir := filepath.Join(root, "volume")
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.Chown(dir, 0, group))
		require.NoError(t, syscall.Chmod(dir, mode))
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), "OUTBOX_TEST_LOCK="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: group}}
		out, _ := cmd.CombinedOutput()
		require.Equal(t, want, cmd.ProcessState.ExitCode(), "mode %o: %s", mode, out)
		if want != 0 {
			require.Contains(t, string(out), "chmod o-rwx")
		}
		require.NoError(t, os.RemoveAll(dir))
	}
}
