//go:build unix

package apisim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// played is a program's result, as a parent sees it.
type played struct {
	Result
	trace string // with APISIM_TRACE
}

// TestAPISimulation plays SEEDS programs from APISIM_FROM on, in processes of their own, so that a panic in a goroutine of the
// library, or a loop without end, is a violation like any other; without SEEDS, 2,000 and those of lookedFor. It fails for every
// kind of violation that is not in opens. APISIM_SEED plays one, with its trace, and APISIM_SHRINK makes that smaller.
func TestAPISimulation(t *testing.T) {
	if testkit.RaceEnabled && os.Getenv("SEEDS") == "" && os.Getenv("APISIM_SEED") == "" {
		t.Skip("make test_faults: a process for each violation is slow under the race detector")
	}
	if seed := os.Getenv("APISIM_SEED"); seed != "" {
		n, _ := strconv.ParseUint(seed, 10, 64)
		replay(t, n)
		return
	}
	play(t, 0, lookedFor)
}

// TestAPISimulation_Moves is TestAPISimulation for programs with moves. APISIM_SEED takes their seeds too, which are those from
// movesFrom on; APISIM_FROM counts from there.
func TestAPISimulation_Moves(t *testing.T) {
	if testkit.RaceEnabled && os.Getenv("SEEDS") == "" || os.Getenv("APISIM_SEED") != "" {
		t.Skip("make test_faults: a process for each violation is slow under the race detector")
	}
	play(t, movesFrom, movesLookedFor)
}

// play plays a campaign of the seeds from base on, and more of them if it is a short one.
func play(t *testing.T, base uint64, more []uint64) {
	t.Helper()
	var most uint64 = 2000
	if testing.Short() {
		most = 200
	}
	from, n := base+testkit.EnvNumber(t, "APISIM_FROM", 1), testkit.EnvNumber(t, "SEEDS", most)
	begin := time.Now()
	all := campaign(from, n, testkit.EnvNumber(t, "APISIM_PROCS", uint64(runtime.GOMAXPROCS(0))))
	if os.Getenv("SEEDS") == "" && !testing.Short() {
		for _, seed := range more {
			all = append(all, span(base+seed, base+seed)...)
		}
	}
	report(t, all, time.Since(begin))
}

// campaign plays seeds with so many processes at a time.
func campaign(from, n, processes uint64) (all []played) {
	const part = 25
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := from
	for range processes {
		wg.Go(func() {
			for {
				mu.Lock()
				first := next
				next += part
				mu.Unlock()
				if first >= from+n {
					return
				}
				results := span(first, min(first+part, from+n)-1)
				mu.Lock()
				all = append(all, results...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b played) int { return int(a.Seed) - int(b.Seed) })
	return all
}

// span plays a range, in as many processes as it takes.
func span(first, last uint64) (all []played) {
	for first <= last {
		results := child(fmt.Sprintf("%d-%d", first, last), nil, false)
		if len(results) == 0 {
			return append(all, played{Result: Result{Seed: first, Violations: []Violation{{13, "the simulation itself fails", "no result", 0}}}})
		}
		all = append(all, results...)
		first = results[len(results)-1].Seed + 1
	}
	return all
}

// child plays seeds in one process.
func child(seeds string, keep []int, trace bool) (all []played) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestChild$", "-test.timeout", "10m")
	cmd.Env = append(os.Environ(), "APISIM_CHILD="+seeds, "GOMAXPROCS=1", "APISIM_KEEP=", "APISIM_TRACE=")
	if keep != nil {
		cmd.Env = append(cmd.Env, "APISIM_KEEP="+ids(keep))
	}
	if trace {
		cmd.Env = append(cmd.Env, "APISIM_TRACE=1")
	}
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	var output bytes.Buffer
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{w}, &output, &output
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	_ = w.Close()
	var lines bytes.Buffer
	_, _ = lines.ReadFrom(r)
	_ = r.Close()
	_ = cmd.Wait()
	return understand(lines.String(), output.String())
}

func ids(keep []int) string {
	var s []string
	for _, id := range keep {
		s = append(s, strconv.Itoa(id))
	}
	if len(s) == 0 {
		return "-1"
	}
	return strings.Join(s, ",")
}

// understand reads what a child said. A seed that began and did not end has ended the process.
func understand(lines, output string) (all []played) {
	var began *uint64
	for line := range strings.SplitSeq(lines, "\n") {
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "begin":
			seed, _ := strconv.ParseUint(rest, 10, 64)
			began = &seed
		case "end":
			var r Result
			_ = json.Unmarshal([]byte(rest), &r)
			all = append(all, played{r, output})
			began = nil
		case "hang":
			all = append(all, played{Result{Seed: *began, Violations: []Violation{{13, rest, rest, 0}}}, output})
			began = nil
		}
	}
	if began != nil {
		all = append(all, played{Result{Seed: *began, Violations: []Violation{crash(output)}}, output})
	}
	return all
}
