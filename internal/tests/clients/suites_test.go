package clients

import (
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// The clients' own tests, which load testdata/vectors.
func TestClients_PythonSuite(t *testing.T) {
	t.Parallel()
	python := pythonPeer(t)[0]
	cmd := exec.CommandContext(t.Context(), python, "-m", "unittest", "discover", "tests")
	cmd.Dir = clientsDir + "/python"
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
}

// example is the first code block of a client's README.
func example(t *testing.T, client, kind string) string {
	t.Helper()
	readme, err := os.ReadFile(clientsDir + "/" + client + "/README.md")
	require.NoError(t, err)
	found := regexp.MustCompile("(?s)```" + kind + "\n(.*?)```").FindSubmatch(readme)
	require.NotNil(t, found)
	return string(found[1])
}

func TestClients_PythonExample(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), pythonPeer(t)[0], "-c", example(t, "python", "python"))
	cmd.Env = append(os.Environ(), languages()[1].env...)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Equal(t, "hello\n", string(output))
}
