package outbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// lockChild is what the test binary does when TestMain finds the variable.
func lockChild(dir string) int {
	o, err := Open(Config{Dir: dir})
	fmt.Println(err)
	switch {
	case errors.Is(err, ErrLocked):
		return 3
	case err != nil:
		return 4
	}
	fmt.Println("epoch", o.Epoch())
	if o.Close() != nil {
		return 5
	}
	return 0
}

func TestLock_KeepsASecondProcessOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "outbox")
	o := open(t, Config{Dir: dir})
	child := func() (string, int) {
		// Without the lock, the meta store would let the child wait for its own lock for good.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), "OUTBOX_TEST_LOCK="+dir)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	out, code := child()
	require.Equal(t, 3, code, out)
	assert.Contains(t, out, "only one process can open an outbox at a time: "+dir)
	_, err := Open(Config{Dir: dir})
	require.ErrorIs(t, err, ErrLocked, "nor a second outbox of this process")

	require.NoError(t, o.Close())
	out, code = child()
	assert.Equal(t, 0, code, out)
	assert.Contains(t, out, "epoch 2", "the process that was kept out took no epoch")
	assert.EqualValues(t, 3, open(t, Config{Dir: dir}).Epoch())
}
