// Package leaktest fails tests that leave goroutines or descriptors behind. It is for tests alone.
package leaktest

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// grace is how long what is being closed may take.
const grace = 5 * time.Second

// Check fails the test if, when it and all its other cleanups are over, goroutines or descriptors are open that were not
// when Check was called. Call it first. It is not for tests that run in parallel with others.
func Check(t testing.TB, options ...goleak.Option) {
	t.Helper()
	descriptors := open()
	options = append(options, goleak.IgnoreCurrent())
	t.Cleanup(func() {
		if err := await(func() error { return goleak.Find(options...) }); err != nil {
			t.Errorf("leaktest: %v", err)
		}
		if err := await(func() error { return opened(descriptors) }); err != nil {
			t.Error(err)
		}
	})
}

// Main is a TestMain: it runs the tests of a package, and fails if all together leave goroutines or descriptors behind. It
// does not look after fuzzing, which has some of its own.
func Main(m *testing.M, options ...goleak.Option) {
	descriptors := open()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); code == 0 && (f == nil || f.Value.String() == "") {
		if err := goleak.Find(options...); err != nil {
			fmt.Fprintf(os.Stderr, "leaktest: %v\n", err)
			code = 1
		}
		if err := await(func() error { return opened(descriptors) }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func await(check func() error) error {
	deadline := time.Now().Add(grace)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// open returns what each descriptor of this process leads to; nothing where the system does not tell.
func open() map[string]string {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	all := map[string]string{}
	for _, e := range entries {
		to, err := os.Readlink(dir + "/" + e.Name())
		if err != nil { // that with which the directory was read
			continue
		}
		// The runtime and package os keep some for good once they were needed.
		if strings.HasPrefix(to, "anon_inode:") || to == "/dev/null" || to == "/dev/urandom" {
			continue
		}
		all[e.Name()] = to
	}
	return all
}

// Descriptors is how many descriptors of this process lead to files, sockets and pipes; 0 where the system does not tell.
func Descriptors() int { return len(open()) }

// opened says which descriptors are open that were not before.
func opened(before map[string]string) error {
	var more []string
	for fd, to := range open() {
		if before[fd] != to {
			more = append(more, fd+" → "+to)
		}
	}
	if len(more) == 0 || before == nil {
		return nil
	}
	return fmt.Errorf("leaktest: %d descriptors are open that were not before: %s", len(more), strings.Join(more, ", "))
}
