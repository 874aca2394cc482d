// Package testkit is what the tests of several packages share: a check for leaked goroutines and descriptors, a network
// in memory, a log that can be read, TLS material. Nothing but tests imports it.
package testkit

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// grace bounds how long CheckLeaks and Main wait for goroutines and descriptors to go: only what never goes is a leak.
const grace = 30 * time.Second

// CheckLeaks fails the test if goroutines or descriptors exist after the test and its other cleanups that did not exist
// when CheckLeaks was called. Call it first. It does not suit tests that run in parallel with others.
func CheckLeaks(t testing.TB, options ...goleak.Option) {
	t.Helper()
	descriptors := openDescriptors()
	options = append(options, goleak.IgnoreCurrent())
	t.Cleanup(func() {
		if err := awaitNil(func() error { return goleak.Find(options...) }); err != nil {
			t.Errorf("testkit: %v", err)
		}
		if err := awaitNil(func() error { return leakedDescriptors(descriptors) }); err != nil {
			t.Error(err)
		}
	})
}

// Main is a TestMain: it runs the tests of a package, and fails if they leave goroutines or descriptors behind. It does
// not check after fuzzing, whose engine keeps some. Tests can tell what names resolve to: see Resolve.
func Main(m *testing.M, options ...goleak.Option) {
	installResolver()
	descriptors := openDescriptors()
	code := m.Run()
	if f := flag.Lookup("test.fuzz"); code == 0 && (f == nil || f.Value.String() == "") {
		if err := awaitNil(func() error { return goleak.Find(options...) }); err != nil {
			fmt.Fprintf(os.Stderr, "testkit: %v\n", err)
			code = 1
		}
		if err := awaitNil(func() error { return leakedDescriptors(descriptors) }); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// awaitNil calls check until it returns nil, for as long as grace lasts.
func awaitNil(check func() error) error {
	deadline := time.Now().Add(grace)
	for {
		err := check()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// openDescriptors maps each descriptor of this process to what it refers to; nil where there is no /proc.
func openDescriptors() map[string]string {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	all := map[string]string{}
	for _, e := range entries {
		to, err := os.Readlink(dir + "/" + e.Name())
		if err != nil { // the descriptor that read the directory
			continue
		}
		// The runtime and package os never close these.
		if strings.HasPrefix(to, "anon_inode:") || to == "/dev/null" || to == "/dev/urandom" {
			continue
		}
		all[e.Name()] = to
	}
	return all
}

// Descriptors counts the files, sockets and pipes that this process has open; 0 where there is no /proc.
func Descriptors() int { return len(openDescriptors()) }

// leakedDescriptors returns an error that lists the descriptors that are open now and were not before.
func leakedDescriptors(before map[string]string) error {
	var more []string
	for fd, to := range openDescriptors() {
		if before[fd] != to {
			more = append(more, fd+" → "+to)
		}
	}
	if len(more) == 0 || before == nil {
		return nil
	}
	return fmt.Errorf("testkit: %d descriptors are open that were not before: %s", len(more), strings.Join(more, ", "))
}
