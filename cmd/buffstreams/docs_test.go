package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// helpPaths are all commands that the help of path lists, with those below them.
func helpPaths(t *testing.T, path ...string) (all [][]string) {
	t.Helper()
	stdout, _, code := runCommand(t, "", append(path, "--help")...)
	require.Zero(t, code)
	_, list, ok := strings.Cut(stdout, "Available Commands:\n")
	if !ok {
		return [][]string{path}
	}
	list, _, _ = strings.Cut(list, "\n\n")
	for line := range strings.Lines(list) {
		name := strings.Fields(line)[0]
		if name != "help" && name != "completion" {
			all = append(all, helpPaths(t, append(path[:len(path):len(path)], name)...)...)
		}
	}
	return all
}

func TestDocs_AreTheHelp(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := runCommand(t, "", "docs")
	require.Zero(t, code, stderr)
	page, err := os.ReadFile("../../docs/command.md")
	require.NoError(t, err)
	require.Equal(t, string(page), stdout, "write it anew: go run ./cmd/buffstreams docs > docs/command.md")
}

// Every command has an example, and says its exit codes; the page has all of them.
func TestHelp_HasExamplesAndExitCodes(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/command.md")
	require.NoError(t, err)
	paths := helpPaths(t)
	require.Greater(t, len(paths), 10)
	for _, path := range paths {
		stdout, _, _ := runCommand(t, "", append(path, "--help")...)
		name := strings.Join(path, " ")
		require.Contains(t, stdout, "Examples:\n", name)
		require.Contains(t, stdout, "  buffstreams "+name, name)
		require.Regexp(t, "(?i)exit code|returns 0", stdout, name)
		require.Contains(t, string(page), "## buffstreams "+name+"\n")
	}
}
