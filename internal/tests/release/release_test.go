// Package release makes a release of the repository as scripts/release does, and uses it as strangers would: from a module
// proxy that has it, with an empty module cache.
package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	repository = "../../.."
	module     = "github.com/buffstreams/watermill-buffstreams"
	version    = "v0.1.0"
)

// run runs a command and returns its output.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), output)
	return string(output)
}

// made is a release: its directory, and the environment of a stranger who can only see its proxy and others' modules.
type made struct {
	dir string
	env []string
}

func makeRelease(t *testing.T) made {
	t.Helper()
	if os.Getenv("RELEASE") == "" {
		t.Skip("compiles the command and all that it needs, with an empty cache: make test_release")
	}
	if _, err := os.Stat(filepath.Join(repository, ".git")); err != nil {
		t.Skip("this is no clone of the repository")
	}
	dir := t.TempDir()
	script, err := filepath.Abs(filepath.Join(repository, "scripts", "release"))
	require.NoError(t, err)
	run(t, dir, []string{
		"MODULES=cmd", "PLATFORMS=none", "GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@localhost",
		"GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@localhost",
	}, script, version, dir)
	others := strings.TrimSpace(run(t, dir, nil, "go", "env", "GOMODCACHE")) + "/cache/download"
	network := strings.TrimSpace(run(t, dir, nil, "go", "env", "GOPROXY"))
	return made{dir: dir, env: []string{
		"GOPROXY=file://" + dir + "/proxy|file://" + others + "|" + network,
		"GONOSUMDB=" + module, "GOFLAGS=-mod=mod -modcacherw", "GOWORK=off", "GOMODCACHE=" + dir + "/strangers", "GOBIN=" + dir + "/gobin",
	}}
}

// checksums are the lines of checksums.txt: module, version, hash.
func (m made) checksums(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(m.dir + "/checksums.txt")
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	require.GreaterOrEqual(t, len(lines), 6, "%s", data) // the root, storage and cmd, and their go.mod files
	return lines
}

func TestRelease_Installs(t *testing.T) {
	m := makeRelease(t)
	tags := strings.Fields(run(t, m.dir+"/repository", nil, "git", "tag", "--sort=creatordate"))
	require.Contains(t, tags, version)
	require.Contains(t, tags, "storage/"+version)
	require.Contains(t, tags, "cmd/"+version)

	// The command says which release it is, from what the go command wrote into it.
	run(t, m.dir, m.env, "go", "install", module+"/cmd/buffstreams@"+version)
	command := m.dir + "/gobin/buffstreams"
	info := run(t, m.dir, nil, "go", "version", "-m", command)
	sums := m.checksums(t)
	for _, name := range []string{module, module + "/storage", module + "/cmd"} {
		at := -1
		for i, line := range sums {
			if strings.HasPrefix(line, name+" "+version+" ") {
				at = i
			}
		}
		require.GreaterOrEqual(t, at, 0, name)
		require.Contains(t, info, strings.ReplaceAll(sums[at], " ", "\t"))
	}
	if help := run(t, m.dir, nil, command, "--help"); strings.Contains(help, "\n  version ") {
		require.Contains(t, run(t, m.dir, nil, command, "version"), version)
	}

	// The library, in an empty module: what it writes into go.sum are the checksums of the release.
	empty := t.TempDir()
	program := `package main

import (
	"fmt"

	buffstreams "` + module + `"
)

func main() {
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{}, nil)
	fmt.Println(pub != nil, err)
	fmt.Println(pub.Close())
}
`
	require.NoError(t, os.WriteFile(empty+"/main.go", []byte(program), 0o600))
	run(t, empty, m.env, "go", "mod", "init", "example.com/empty")
	run(t, empty, m.env, "go", "get", module+"@"+version)
	require.Equal(t, "true <nil>\n<nil>\n", run(t, empty, m.env, "go", "run", "."))
	goSum, err := os.ReadFile(empty + "/go.sum")
	require.NoError(t, err)
	require.Contains(t, string(goSum), sums[0])

	// An upgrade from one module to all: storage comes at the version that the others have.
	run(t, empty, m.env, "go", "get", module+"/storage@"+version)
	list := run(t, empty, m.env, "go", "list", "-m", "all")
	require.Contains(t, list, module+" "+version+"\n")
	require.NotContains(t, list, "=>")
}
