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
		fmt.Fprintf(out, format+"\n", args...)
		_ = out.Flush()
	}
	first, last := parseRange(seeds)
	dir := tempDir()
	defer os.RemoveAll(dir)
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

// hang is how long a program may take.
const hang = 6 * time.Second

// watch ends a process that computes without end, and says where.
func watch(alive <-chan struct{}, say func(string, ...any)) {
	for {
		select {
		case <-alive:
		case <-time.After(hang):
			say("hang %s", standstill())
			os.Exit(3)
		}
	}
}

// standstill says who computes, or who waits for a mutex whose holder waits for the time, which then stands still.
func standstill() string {
	computes, waits := map[string]bool{}, map[string]bool{}
	for _, s := range bubble() {
		head, _, _ := strings.Cut(s, "\n")
		f := libraryFrame(s)
		switch {
		case f == "":
		case strings.Contains(head, "[runnable") || strings.Contains(head, "[running"):
			computes[f] = true
		case strings.Contains(head, "Mutex"):
			waits[f] = true
		}
	}
	if len(computes) > 0 {
		return fmt.Sprintf("a loop without end: %v", slices.Sorted(maps.Keys(computes)))
	}
	return fmt.Sprintf("a lock is held while its holder waits, wanted by %v", slices.Sorted(maps.Keys(waits)))
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
	for _, f := range strings.Split(s, ",") {
		id, _ := strconv.Atoi(f)
		ids = append(ids, id)
	}
	return ids
}
