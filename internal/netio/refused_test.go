package netio

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

func TestRefused(t *testing.T) {
	_, refused := net.Dial("tcp", testkit.FreeAddress(t))
	require.True(t, Refused(refused), refused)
	_, missing := net.Dial("unix", filepath.Join(t.TempDir(), "none"))
	require.True(t, Refused(missing), missing)

	silent := fmt.Errorf("dial: %w", errors.New("i/o timeout"))
	require.False(t, Refused(silent))
	require.True(t, Refused(errors.Join(refused, missing)))
	require.False(t, Refused(errors.Join(refused, silent)), "one of the addresses may be there")
	require.False(t, Refused(nil))
}
