//go:build unix

package apisim

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestChild plays seeds for a parent, one line for each, until one leaves something behind. All share a bubble, as the library
// keeps channels in pools of the process.
func TestChild(t *testing.T) {
	seeds := os.Getenv("APISIM_CHILD")
	if seeds == "" {
		t.Skip("only for TestAPISimulation")
	}
	out := bufio.NewWriter(os.NewFile(3, "results"))
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(out, format+"\n", args...)
		_ = out.Flush()
	}
	first, last := parseRange(seeds)
	dir := tempDir()
	defer func() { _ = os.RemoveAll(dir) }()
	alive := make(chan struct{}, 1)
	go watch(alive, say) // outside the bubble, where time is real
	synctest.Test(t, func(*testing.T) {
		for seed := first; seed <= last; seed++ {
			say("begin %d", seed)
			select {
			case alive <- struct{}{}:
			default:
			}
			p := Generate(seed)
			if keep := os.Getenv("APISIM_KEEP"); keep != "" {
				p = p.Keep(parseIDs(keep))
			}
			var trace io.Writer
			if os.Getenv("APISIM_TRACE") != "" {
				trace = os.Stdout
				fmt.Printf("%+v\n", p.Shape)
			}
			r := Run(p, filepath.Join(dir, strconv.FormatUint(seed, 10)), trace)
			line, _ := json.Marshal(r)
			say("end %s", line)
			if r.Dirty || len(r.Violations) > 0 {
				_ = os.RemoveAll(dir)
				os.Exit(0)
			}
		}
	})
}

// A program that computes for busy, or stands still for still, does not end. Both allow for a machine that has other work.
const (
	busy  = 5 * time.Second // of the processor
	still = 10 * time.Second
)

// watch ends a process that does not get on, and says where it is.
func watch(alive <-chan struct{}, say func(string, ...any)) {
	began, used := time.Now(), processor()
	for {
		select {
		case <-alive:
			began, used = time.Now(), processor()
			continue
		case <-time.After(time.Second):
		}
		where, computes := standstill()
		if computes && processor()-used > busy || !computes && where != "" && time.Since(began) > still {
			say("hang %s", where)
			os.Exit(3)
		}
	}
}

// processor is the time that this process has computed.
func processor() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// standstill says who computes, or who waits for a mutex whose holder waits for the time, which then stands still.
func standstill() (where string, computes bool) {
	busy, waits := map[string]bool{}, map[string]bool{}
	for _, s := range bubble() {
		head, _, _ := strings.Cut(s, "\n")
		f := libraryFrame(s)
		switch {
		case f == "":
		case strings.Contains(head, "[runnable") || strings.Contains(head, "[running"):
			busy[f] = true
		case strings.Contains(head, "Mutex"):
			waits[f] = true
		}
	}
	switch {
	case len(busy) > 0:
		return fmt.Sprintf("a loop without end: %v", slices.Sorted(maps.Keys(busy))), true
	case len(waits) > 0:
		return fmt.Sprintf("a lock is held while its holder waits, wanted by %v", slices.Sorted(maps.Keys(waits))), false
	}
	return "", false
}

func tempDir() string {
	root := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		root = "/dev/shm" // fsync costs nothing there
	}
	dir, err := os.MkdirTemp(root, "apisim")
	if err != nil {
		panic(err)
	}
	return dir
}

func parseRange(s string) (first, last uint64) {
	a, b, found := strings.Cut(s, "-")
	first, _ = strconv.ParseUint(a, 10, 64)
	last = first
	if found {
		last, _ = strconv.ParseUint(b, 10, 64)
	}
	return first, last
}

func parseIDs(s string) (ids []int) {
	for f := range strings.SplitSeq(s, ",") {
		id, _ := strconv.Atoi(f)
		ids = append(ids, id)
	}
	return ids
}
