package clients

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// compiled is the directory that TypeScript was compiled to, once for all tests; TestMain removes it.
type compiled struct {
	once sync.Once
	dir  string
	err  error
}

var typescript compiled

// errMissing is an interpreter or compiler that is not there.
var errMissing = errors.New("clients/typescript needs")

func (c *compiled) build() (string, error) {
	c.once.Do(func() { c.dir, c.err = compileTypescript() })
	return c.dir, c.err
}

// remove deletes what was compiled.
func (c *compiled) remove() {
	if c.dir != "" {
		_ = os.RemoveAll(c.dir)
	}
}

// compileTypescript installs the compiler, if the package's node_modules have none, and compiles into a directory of its own.
func compileTypescript() (string, error) {
	version, err := exec.Command("node", "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%w node, which is not installed", errMissing)
	}
	var major int
	if _, err := fmt.Sscanf(string(version), "v%d.", &major); err != nil || major < 20 {
		return "", fmt.Errorf("%w node 20 or later, here is %s", errMissing, version)
	}
	source, err := filepath.Abs(clientsDir + "/typescript")
	if err != nil {
		return "", err
	}
	tsc := filepath.Join(source, "node_modules", "typescript", "bin", "tsc")
	if _, err := os.Stat(tsc); err != nil {
		install := exec.Command("npm", "ci", "--no-audit", "--no-fund")
		install.Dir = source
		if output, err := install.CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w its compiler: npm ci: %w: %s", errMissing, err, output)
		}
	}
	dir, err := os.MkdirTemp("", "buffstreams-typescript")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(dir+"/package.json", []byte(`{"type": "module"}`), 0o600); err != nil {
		return dir, err
	}
	compile := exec.Command("node", tsc, "--outDir", dir)
	compile.Dir = source
	if output, err := compile.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("tsc: %w: %s", err, output)
	}
	return dir, nil
}

func typescriptDir(t *testing.T) string {
	t.Helper()
	dir, err := typescript.build()
	if errors.Is(err, errMissing) {
		missing(t, err.Error())
	}
	require.NoError(t, err)
	return dir
}

func typescriptPeer(t *testing.T) []string {
	t.Helper()
	return []string{"node", filepath.Join(typescriptDir(t), "tests", "peer.js")}
}

func TestClients_TypescriptSuite(t *testing.T) {
	t.Parallel()
	vectors, err := filepath.Abs("../../../testdata/vectors")
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), "node", "--test", filepath.Join(typescriptDir(t), "tests")+"/")
	cmd.Env = append(os.Environ(), "VECTORS="+vectors)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
}

func TestClients_TypescriptExample(t *testing.T) {
	t.Parallel()
	index := filepath.Join(typescriptDir(t), "src", "index.js")
	code := strings.ReplaceAll(example(t, "typescript", "ts"), `"watermill-buffstreams"`, `"`+index+`"`)
	output, err := exec.CommandContext(t.Context(), "node", "--input-type=module", "-e", code).CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Equal(t, "hello\n", string(output))
}
