package docs

import (
	"bufio"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// patience bounds what a command of a document may take.
const patience = 2 * time.Minute

// commands are the lines of the shell blocks of all documents, without comments and what is before the command.
func commands(t *testing.T) (lines []snippet) {
	t.Helper()
	for _, b := range blocks(t, "sh", "bash") {
		joined := strings.ReplaceAll(b.text, "\\\n", "") // a command over several lines is named by its first
		for i, line := range strings.Split(joined, "\n") {
			line, _, _ = strings.Cut(line, " #")
			line = regexp.MustCompile(`^([A-Z_]+=("[^"]*"|\S+) )+`).ReplaceAllString(strings.TrimSpace(line), "")
			if line != "" && !strings.HasPrefix(line, "#") {
				lines = append(lines, snippet{b.file, line, b.line + i})
			}
		}
	}
	require.NotEmpty(t, lines)
	return lines
}

// TestCommands_Exist holds that every command of a document is one: its target, packages, tests, subcommand and flags. A new
// kind of command needs a new case here. What they do is held by other tests: make's targets are what CI runs, programs have
// tests of their own.
func TestCommands_Exist(t *testing.T) {
	for _, c := range commands(t) {
		words := strings.Fields(c.text)
		dir := "."
		if strings.HasPrefix(c.file, "examples/") {
			dir = "examples"
		}
		switch {
		case words[0] == "make":
			_, err := try(t, "make", append([]string{"-n"}, words[1:]...)...)
			require.NoError(t, err, "%s:%d", c.file, c.line)
		case strings.HasPrefix(c.text, "go get "), strings.HasPrefix(c.text, "go install "):
			path, _, _ := strings.Cut(words[2], "@")
			requireDirectory(t, c, strings.TrimPrefix(strings.TrimPrefix(path, module), "/"))
		case strings.HasPrefix(c.text, "go test "):
			requireTests(t, c, words[2:])
		case strings.HasPrefix(c.text, "go run ./cmd/buffstreams "):
			requireFlags(t, c, words[3:])
		case strings.HasPrefix(c.text, "go run ./"):
			requireDirectory(t, c, filepath.Join(dir, words[2]))
		case words[0] == "buffstreams":
			requireFlags(t, c, words[1:])
		default:
			t.Errorf("%s:%d: no test knows how to hold %q", c.file, c.line, c.text)
		}
	}
}

func requireDirectory(t *testing.T, c snippet, path string) {
	t.Helper()
	info, err := os.Stat(filepath.Join(root(t), path))
	require.NoError(t, err, "%s:%d", c.file, c.line)
	require.True(t, info.IsDir(), "%s:%d", c.file, c.line)
}

// requireTests holds that the packages exist, and that -run matches a test somewhere.
func requireTests(t *testing.T, c snippet, words []string) {
	t.Helper()
	for i, w := range words {
		if strings.HasPrefix(w, "./") {
			requireDirectory(t, c, strings.TrimSuffix(w, "/..."))
		}
		if w == "-run" {
			pattern := regexp.MustCompile(strings.Trim(words[i+1], `'"`))
			require.True(t, slices.ContainsFunc(testNames(t), pattern.MatchString), "%s:%d: no test matches %s", c.file, c.line, pattern)
		}
	}
}

// testNames are the names of all tests of the repository.
func testNames(t *testing.T) (names []string) {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((Test|Fuzz)\w+)\(`)
	require.NoError(t, filepath.WalkDir(root(t), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
		return err
	}))
	return names
}

// requireFlags holds that a subcommand exists and has the flags.
func requireFlags(t *testing.T, c snippet, words []string) {
	t.Helper()
	path := []string{}
	for _, w := range words {
		if !regexp.MustCompile(`^[a-z]+$`).MatchString(w) {
			break
		}
		path = append(path, w)
	}
	help, err := try(t, command(t), append(path, "--help")...)
	require.NoError(t, err, "%s:%d", c.file, c.line)
	require.Contains(t, help, "buffstreams "+path[0], "%s:%d: no such subcommand", c.file, c.line)
	for _, w := range words {
		if flag, _, _ := strings.Cut(w, "="); strings.HasPrefix(flag, "-") {
			require.Contains(t, help, flag, "%s:%d", c.file, c.line)
		}
	}
}

// command is the path of the command, which is built once.
func command(t *testing.T) string {
	t.Helper()
	if built == "" {
		dir, err := os.MkdirTemp("", "docs") // for all tests: TestMain removes it
		require.NoError(t, err)
		built = filepath.Join(dir, "buffstreams")
		run(t, "go", "build", "-o", built, "./cmd/buffstreams")
	}
	return built
}

var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(filepath.Dir(built))
	}
	os.Exit(code)
}

// readmeAddress is what README.md uses, and what the tests put a free port in the place of.
const readmeAddress = "127.0.0.1:5031"

// TestReadme_ProgramRuns holds that the program of README.md does what it says.
func TestReadme_ProgramRuns(t *testing.T) {
	var program string
	for _, b := range blocks(t, "go") {
		if b.file == "README.md" && strings.HasPrefix(b.text, "package main") {
			program = b.text
		}
	}
	require.NotEmpty(t, program)
	file := filepath.Join(t.TempDir(), "main.go")
	require.NoError(t, os.WriteFile(file, []byte(strings.ReplaceAll(program, readmeAddress, testkit.FreeAddress(t))), 0o600))
	require.Equal(t, "hello\n", run(t, "go", "run", file))
}

// TestReadme_PubAndSub runs what README.md says of the command: lines that go into pub come out of sub.
func TestReadme_PubAndSub(t *testing.T) {
	address := testkit.FreeAddress(t)
	lines := map[string]string{}
	for _, c := range commands(t) {
		if sub, ok := strings.CutPrefix(c.text, "go run ./cmd/buffstreams "); ok && c.file == "README.md" {
			name, args, _ := strings.Cut(sub, " ")
			lines[name] = strings.ReplaceAll(args, readmeAddress, address)
		}
	}
	require.Contains(t, lines, "sub")
	sub := exec.CommandContext(t.Context(), command(t), append([]string{"sub"}, strings.Fields(lines["sub"])...)...)
	out, err := sub.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, sub.Start())
	args, from, _ := strings.Cut(lines["pub"], "<")
	require.FileExists(t, filepath.Join(root(t), strings.TrimSpace(from)))
	pub := exec.CommandContext(t.Context(), command(t), append([]string{"pub"}, strings.Fields(args)...)...)
	pub.Stdin = strings.NewReader("first\nsecond\n")
	said, err := pub.CombinedOutput()
	require.NoError(t, err, string(said))
	timer := time.AfterFunc(patience, func() { _ = sub.Process.Kill() })
	defer timer.Stop()
	scanner := bufio.NewScanner(out)
	for _, want := range []string{"first", "second"} {
		require.True(t, scanner.Scan())
		require.Equal(t, want, scanner.Text())
	}
	require.NoError(t, sub.Process.Kill())
	require.Error(t, sub.Wait())
}
