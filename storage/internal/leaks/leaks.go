// Package leaks fails the tests of a package that leave goroutines or files open. It is for tests alone.
package leaks

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// Main is the body of a TestMain: it runs the tests, and fails if goroutines are left, or files open, that were not before.
// It does not check a fuzzing run, which has some of its own.
func Main(m *testing.M) {
	before := openFiles()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); code == 0 && (f == nil || f.Value.String() == "") {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		for name, n := range openFiles() {
			if n > before[name] {
				fmt.Fprintf(os.Stderr, "leaks: %s is still open\n", name)
				code = 1
			}
		}
	}
	os.Exit(code)
}

// openFiles counts the descriptors of this process that lead to regular files and directories, by the name of the file. It
// returns nothing where the system does not tell.
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
