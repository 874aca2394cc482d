package clients

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// run runs a program in a directory, without what the environment has for Python, and returns its output.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PYTHONPATH=", "PIP_NO_INDEX=1", "PIP_DISABLE_PIP_VERSION_CHECK=1", "npm_config_offline=true")
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, output)
	return string(output)
}

// copied is a copy of a client's directory: building a package writes into it.
func copied(t *testing.T, client string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), client)
	require.NoError(t, os.MkdirAll(dir, 0o700))
	for _, name := range []string{"src", "tests"} {
		require.NoError(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(clientsDir, client, name))))
	}
	for _, name := range []string{"README.md", "pyproject.toml", "package.json", "tsconfig.json"} {
		if content, err := os.ReadFile(filepath.Join(clientsDir, client, name)); err == nil {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), content, 0o600))
		}
	}
	return dir
}

// pythonWith is a Python that has a module.
func pythonWith(t *testing.T, modules string) string {
	t.Helper()
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.CommandContext(t.Context(), python, "-c", "import "+modules).Run() == nil {
			return python
		}
	}
	missing(t, "no Python has "+modules)
	return ""
}

// The package is built without a network, installed into an empty environment, and does what its README says.
func TestClients_PythonPackage(t *testing.T) {
	t.Parallel()
	pythonPeer(t) // or there is none that is new enough
	builder, dir, empty := pythonWith(t, "build, setuptools, wheel"), copied(t, "python"), t.TempDir()
	run(t, dir, builder, "-m", "build", "--no-isolation", "--outdir", empty)
	wheels, err := filepath.Glob(filepath.Join(empty, "*.whl"))
	require.NoError(t, err)
	require.Len(t, wheels, 1)
	environment := filepath.Join(empty, "environment")
	run(t, empty, pythonWith(t, "ensurepip"), "-m", "venv", environment)
	python := filepath.Join(environment, "bin", "python")
	run(t, empty, python, "-m", "pip", "install", wheels[0])
	require.Equal(t, "hello\n", run(t, empty, python, "-c", example(t, "python", "python")))
	run(t, empty, python, "-c", "import buffstreams, os; assert os.path.exists(os.path.join(os.path.dirname(buffstreams.__file__), 'py.typed'))")
}

func TestClients_PythonTypes(t *testing.T) {
	t.Parallel()
	mypy, err := exec.LookPath("mypy")
	if err != nil {
		missing(t, "mypy is not installed")
	}
	run(t, copied(t, "python"), mypy, "--strict", "src")
}

// The package is packed, installed without a network into an empty directory, and does what its README says, with types.
func TestClients_TypescriptPackage(t *testing.T) {
	t.Parallel()
	typescriptDir(t) // or the compiler is missing
	dir, empty := copied(t, "typescript"), t.TempDir()
	modules, err := filepath.Abs(filepath.Join(clientsDir, "typescript", "node_modules"))
	require.NoError(t, err)
	require.NoError(t, os.Symlink(modules, filepath.Join(dir, "node_modules")))
	run(t, dir, "npm", "pack", "--pack-destination", empty)
	packed, err := filepath.Glob(filepath.Join(empty, "*.tgz"))
	require.NoError(t, err)
	require.Len(t, packed, 1)
	for name, content := range map[string]string{"package.json": `{"type": "module"}`, "example.ts": example(t, "typescript", "ts")} {
		require.NoError(t, os.WriteFile(filepath.Join(empty, name), []byte(content), 0o600))
	}
	run(t, empty, "npm", "install", "--no-audit", "--no-fund", packed[0])
	run(t, empty, "node", filepath.Join(modules, "typescript", "bin", "tsc"), "--strict", "--module", "nodenext", "--target", "es2022",
		"--typeRoots", filepath.Join(modules, "@types"), "--types", "node", "example.ts")
	require.Equal(t, "hello\n", run(t, empty, "node", "example.js"))
}
