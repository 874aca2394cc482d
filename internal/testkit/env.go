package testkit

import (
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// EnvNumber returns the positive number in an environment variable, or otherwise if it is not set.
func EnvNumber(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 63)
	require.NoError(t, err, name)
	require.Positive(t, n, name)
	return n
}
