// Package testenv has what the tests of several packages of this module need of their environment. It is for tests
// alone.
package testenv

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// grace is how long goroutines may take to end on a busy machine: only what never ends is a leak.
const grace = 30 * time.Second

// Main is the body of a TestMain: it runs the tests, and fails if goroutines run, or files are open, that were not
// before. It does not check a fuzzing run, which has some of its own.
func Main(m *testing.M) {
	before := openFiles()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); code == 0 && (f == nil || f.Value.String() == "") {
		err := goleak.Find()
		for end := time.Now().Add(grace); err != nil && time.Now().Before(end); { // Find waits for less than a second
			err = goleak.Find()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		for name, n := range openFiles() {
			if n > before[name] {
				fmt.Fprintf(os.Stderr, "testenv: %s is still open\n", name)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// openFiles counts the descriptors of this process that lead to regular files and directories, by the name of the file.
// It returns none on systems without /proc.
func openFiles() map[string]int {
	links, _ := filepath.Glob("/proc/self/fd/*")
	files := map[string]int{}
	for _, link := range links {
		info, err := os.Stat(link)
		if err != nil || !info.Mode().IsRegular() && !info.IsDir() {
			continue
		}
		if name, err := os.Readlink(link); err == nil {
			files[name]++
		}
	}
	return files
}

// Dir returns a directory that exists until the test ends, in memory if the machine can: for tests that write much, and
// whose subject is not the disk.
func Dir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "storage")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Stride returns the step for a test that tries every case: 1, so that it tries all, or n in a short run and under the
// race detector.
func Stride(n int) int {
	if testing.Short() || raceEnabled {
		return n
	}
	return 1
}
