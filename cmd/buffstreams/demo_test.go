package main

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// count is an independent count of a source: with the parser's plainest mode, and sizes from the file system.
func count(t *testing.T, source string, limit int64) (files, bad, tooLarge int) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		files++
		if info.Size() > limit {
			tooLarge++
		} else if _, err := parser.ParseFile(token.NewFileSet(), path, nil, 0); err != nil {
			bad++
		}
		return nil
	}))
	return files, bad, tooLarge
}

// account is what is promised of the JSON output.
type account struct {
	Published, Handled, Retried, Poisoned, Refused, Lost, Duplicates *int
	Seconds                                                          *float64
	Found, Unconfirmed                                               int
	Interrupted                                                      bool
}

// parseAccount demands that there is nothing but one object with every key.
func parseAccount(t *testing.T, stdout string) account {
	t.Helper()
	var a account
	dec := json.NewDecoder(strings.NewReader(stdout))
	require.NoError(t, dec.Decode(&a), stdout)
	require.False(t, dec.More(), stdout)
	require.Equal(t, 1, strings.Count(stdout, "\n"))
	for _, p := range []*int{a.Published, a.Handled, a.Retried, a.Poisoned, a.Refused, a.Lost, a.Duplicates} {
		require.NotNil(t, p, stdout)
	}
	require.NotNil(t, a.Seconds)
	require.Equal(t, *a.Published, *a.Handled+*a.Poisoned+*a.Lost, stdout)
	return a
}

func requireAccount(t *testing.T, a account, files, bad, tooLarge int) {
	t.Helper()
	require.Equal(t, files, a.Found)
	require.Equal(t, files-tooLarge, *a.Published)
	require.Equal(t, files-tooLarge-bad, *a.Handled)
	require.Equal(t, bad, *a.Poisoned)
	require.Equal(t, 2*bad, *a.Retried)
	require.Equal(t, tooLarge, *a.Refused)
	require.Zero(t, *a.Lost)
	require.Zero(t, *a.Duplicates)
	require.Zero(t, a.Unconfirmed)
	require.Positive(t, *a.Seconds)
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
}

// madeUpSource has 8 good files, 5 bad ones, and one over 100,000 bytes.
func madeUpSource(t *testing.T) string {
	dir := t.TempDir()
	for i := range 3 {
		write(t, dir, fmt.Sprintf("p%d/good.go", i), fmt.Sprintf("package p%d\n", i))
	}
	write(t, dir, "testdata/deep/er/good.go", "package er\n")
	write(t, dir, "_ignored.go", "package ignored\n")
	write(t, dir, ".hidden.go", "package hidden\n")
	write(t, dir, "folder.go/inside.go", "package inside\n")
	write(t, dir, "limit.go", "package limit\n//"+strings.Repeat("x", 100_000-16))
	write(t, dir, "bad.go", "package bad\nfunc {\n")
	write(t, dir, "binary.go", "\x00\xff\xfe")
	write(t, dir, "empty.go", "")
	write(t, dir, "x\xffy.go", "not a package") // a name that is no UTF-8
	write(t, dir, "quoted.go", "package quoted\n`"+strings.Repeat("x", 90_000)+"`")
	write(t, dir, "large.go", "package large\n//"+strings.Repeat("x", 100_001-16))
	write(t, dir, "notes.txt", "not Go")
	require.NoError(t, os.Symlink("p0/good.go", filepath.Join(dir, "link.go")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "dangling.go")))
	require.NoError(t, os.Symlink("p1", filepath.Join(dir, "linked")))
	return dir
}

func TestDemo_AccountsForEveryFile(t *testing.T) {
	t.Parallel()
	dir := madeUpSource(t)
	files, bad, tooLarge := count(t, dir, 100_000)
	require.Equal(t, []int{14, 5, 1}, []int{files, bad, tooLarge})
	stdout, stderr, code := runCommand(t, "", "demo", "--source", dir, "--json", "--max-message-size", "100000")
	require.Zero(t, code, stderr)
	requireAccount(t, parseAccount(t, stdout), files, bad, tooLarge)
	requireOneLine(t, stderr, "refused large.go", "100001", "100000")
}

func TestDemo_FollowsALinkToItsSource(t *testing.T) {
	t.Parallel()
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(madeUpSource(t), link))
	stdout, _, code := runCommand(t, "", "demo", "--source", link, "--json", "--max-message-size", "100000")
	require.Zero(t, code)
	requireAccount(t, parseAccount(t, stdout), 14, 5, 1)
}

func TestDemo_OnGoSources(t *testing.T) {
	t.Parallel()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "go")
	files, bad, _ := count(t, source, 16<<20)
	require.Positive(t, bad)
	stdout, stderr, code := runCommand(t, "", "demo", "--source", source, "--json")
	require.Zero(t, code, stderr)
	require.Empty(t, stderr)
	requireAccount(t, parseAccount(t, stdout), files, bad, 0)
}

func TestDemo_ForReaders(t *testing.T) {
	t.Parallel()
	stdout, stderr, code := runCommand(t, "", "demo", "--source", madeUpSource(t), "-v", "--max-message-size", "100000")
	require.Zero(t, code)
	for _, text := range []string{
		"14 .go files", "published   13 messages", "handled     8 parsed", "retried     10 attempts",
		"poisoned    5", "refused     1 not published: 1 over the limit, 0 unreadable", "lost        0", "duplicated  0",
		"messages/s", "MB/s", "13 published = 8 handled + 5 poisoned + 0 lost",
	} {
		require.Contains(t, stdout, text)
	}
	require.Contains(t, stderr, "poisoned bad.go: bad.go:2:6: expected 'IDENT', found '{'")
	for line := range strings.Lines(stderr) {
		require.Less(t, len(line), 2000, "a reason is bounded")
	}
}

func TestDemo_OfNothing(t *testing.T) {
	t.Parallel()
	stdout, _, code := runCommand(t, "", "demo", "--source", t.TempDir(), "--json")
	require.Zero(t, code)
	require.Contains(t, stdout, `"published":0`)
}

func TestDemo_Errors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "file.go", "package file")
	for _, args := range [][]string{
		{"--source", filepath.Join(dir, "none")}, {"--source", filepath.Join(dir, "file.go")},
		{"--workers", "-1"}, {"--max-message-size", "0"}, {"--nonsense"}, {"surplus"},
	} {
		stdout, stderr, code := runCommand(t, "", append([]string{"demo"}, args...)...)
		require.NotZero(t, code)
		require.Empty(t, stdout)
		requireOneLine(t, stderr)
	}
}

// manyFiles is several times what is on its way at a time, and its first file is bad. A third is more than comments: enough to keep
// the command busy until a test has done something to it, and not for minutes under the race detector.
func manyFiles(t *testing.T) string {
	dir := t.TempDir()
	write(t, dir, "a.go", "bad")
	const line = "var _ = []int{1, 2, 3, 4, 5, 6, 7, 8}\n"
	body := "package many\n" + strings.Repeat(line, 1700) + strings.Repeat("//"+line, 3300)
	for i := range 250 {
		write(t, dir, fmt.Sprintf("b%d.go", i), body)
	}
	return dir
}

// An interrupt goes to both processes, as a terminal sends it.
func TestDemo_Interrupted(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "demo", "--source", manyFiles(t), "--json", "-v", "--max-message-size", "1000000")
	p.awaitLine("poisoned a.go")
	for _, pid := range append(children(t, p.cmd.Process.Pid), p.cmd.Process.Pid) {
		require.NoError(t, syscall.Kill(pid, syscall.SIGINT))
	}
	stdout, code := p.wait()
	a := parseAccount(t, stdout)
	require.Equal(t, exitInterrupted, code, p.stderr.String())
	require.True(t, a.Interrupted)
	require.Less(t, *a.Published, 251)
	require.Zero(t, *a.Lost)
	require.Zero(t, *a.Duplicates)
	require.Zero(t, a.Unconfirmed, "what was on its way was confirmed before the end")
}

// The account holds for what the publisher had reported before it died.
func TestDemo_PublisherIsKilled(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "demo", "--source", manyFiles(t), "--json", "-v", "--max-message-size", "1000000")
	p.awaitLine("poisoned a.go")
	pids := children(t, p.cmd.Process.Pid)
	require.Len(t, pids, 1)
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGKILL))
	stdout, code := p.wait()
	a := parseAccount(t, stdout)
	require.Equal(t, 1, code)
	require.Zero(t, *a.Lost)
	require.Zero(t, *a.Duplicates)
	require.Contains(t, p.stderr.String(), "the publisher's process failed: signal: killed")
}

// children are the processes that a process has started.
func children(t *testing.T, pid int) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	require.NoError(t, err)
	if len(tasks) == 0 {
		t.Skip("this system does not tell the children of a process")
	}
	for _, task := range tasks {
		list, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(list)) {
			var child int
			_, err := fmt.Sscan(field, &child)
			require.NoError(t, err)
			pids = append(pids, child)
		}
	}
	return pids
}
