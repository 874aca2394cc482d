package apisim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// played is a program's result, as a parent sees it.
type played struct {
	Result
	trace string // with APISIM_TRACE
}

// TestAPISimulation plays SEEDS programs (2,000) from APISIM_FROM on, in processes of their own, so that a panic in a goroutine
// of the library, or a loop without end, is a violation like any other. APISIM_SEED plays one, with its trace, and APISIM_SHRINK
// makes that smaller. APISIM_KNOWN is a regular expression of kinds that are not failures.
func TestAPISimulation(t *testing.T) {
	if os.Getenv("APISIM") == "" && os.Getenv("SEEDS") == "" && os.Getenv("APISIM_SEED") == "" {
		t.Skip("make apisim: most seeds fail until the fixes are in")
	}
	if seed := os.Getenv("APISIM_SEED"); seed != "" {
		n, _ := strconv.ParseUint(seed, 10, 64)
		replay(t, n)
		return
	}
	from, n := number("APISIM_FROM", 1), number("SEEDS", 2000)
	begin := time.Now()
	all := campaign(uint64(from), uint64(n))
	report(t, all, time.Since(begin))
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// campaign plays seeds with a process for each processor.
func campaign(from, n uint64) (all []played) {
	const part = 25
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := from
	for range number("APISIM_PROCS", runtime.GOMAXPROCS(0)) {
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
	for _, line := range strings.Split(lines, "\n") {
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

var panicPattern = regexp.MustCompile(`(?m)^(panic: .*|fatal error: .*)$`)

// crash says how a process ended.
func crash(output string) Violation {
	what := panicPattern.FindString(output)
	if what == "" {
		what = "it says " + output[max(0, len(output)-300):]
	}
	stack := output
	if i := strings.Index(output, what); i >= 0 {
		stack = output[i:]
	}
	if i := strings.Index(stack, "\n\ngoroutine"); i >= 0 {
		stack = stack[i:]
		if j := strings.Index(stack[2:], "\n\n"); j >= 0 {
			stack = stack[:j+2]
		}
	}
	what = regexp.MustCompile(`0x[0-9a-f]+|\[recovered.*|\d{5,}`).ReplaceAllString(what, "")
	return Violation{13, fmt.Sprintf("the process ends: %.100s in %s", what, libraryFrame(stack)), what, 0}
}

// report sums up, and fails for every kind that is not known.
func report(t *testing.T, all []played, took time.Duration) {
	kinds := map[string][]uint64{}
	first := map[string]Violation{}
	messages, delivered, clean, clock := 0, 0, 0, int64(0)
	for _, r := range all {
		messages += r.Messages
		delivered += r.Delivered
		clock += r.Millis
		if len(r.Violations) == 0 {
			clean++
		}
		for _, v := range r.Violations {
			if len(kinds[v.Kind]) == 0 {
				first[v.Kind] = v
			}
			kinds[v.Kind] = append(kinds[v.Kind], r.Seed)
		}
	}
	t.Logf("%d programs in %v (%.0f a second): %d without a violation, %d messages, %d deliveries, %v of simulated time",
		len(all), took.Round(time.Millisecond), float64(len(all))/took.Seconds(), clean, messages, delivered, time.Duration(clock)*time.Millisecond)
	known := regexp.MustCompile("^$")
	if s := os.Getenv("APISIM_KNOWN"); s != "" {
		known = regexp.MustCompile(s)
	}
	for _, kind := range sorted(kinds) {
		seeds := kinds[kind]
		line := fmt.Sprintf("%5d programs, invariant %2d: %s\n        seeds %v\n        such as: %.400s", len(seeds), first[kind].Invariant, kind,
			seeds[:min(5, len(seeds))], first[kind].What)
		if known.MatchString(kind) {
			t.Log(line)
		} else {
			t.Error(line)
		}
	}
}

func sorted(kinds map[string][]uint64) (all []string) {
	for kind := range kinds {
		all = append(all, kind)
	}
	slices.SortFunc(all, func(a, b string) int { return len(kinds[b]) - len(kinds[a]) })
	return all
}

// replay plays one seed, up to APISIM_TRIES times until it fails, and shows what happened.
func replay(t *testing.T, seed uint64) {
	p := Generate(seed)
	var keep []int
	if s := os.Getenv("APISIM_KEEP"); s != "" {
		keep = parseIDs(s)
		p = p.Keep(keep)
	}
	for try := range number("APISIM_TRIES", 10) {
		results := child(strconv.FormatUint(seed, 10), keep, true)
		r := results[len(results)-1]
		if len(r.Violations) == 0 {
			if try == 0 {
				t.Log(r.trace)
			}
			continue
		}
		t.Log(r.trace)
		for _, v := range r.Violations {
			t.Errorf("seed %d, try %d: %v", seed, try+1, v)
		}
		if os.Getenv("APISIM_SHRINK") != "" {
			for _, v := range r.Violations {
				t.Log(shrink(p, v.Kind))
			}
		}
		return
	}
}

// violates tells whether a program breaks a rule, in some tries.
func violates(p Program, kind string) bool {
	for range 3 {
		for _, r := range child(strconv.FormatUint(p.Seed, 10), p.IDs(), false) {
			for _, v := range r.Violations {
				if v.Kind == kind {
					return true
				}
			}
		}
	}
	return false
}

// shrink removes steps while the same kind of violation remains: halves, quarters, and so on down to single ones.
func shrink(p Program, kind string) string {
	for size := max(1, len(p.Steps)/2); ; {
		removed := false
		for from := 0; from < len(p.Steps); {
			less := p
			less.Steps = slices.Delete(slices.Clone(p.Steps), from, min(from+size, len(p.Steps)))
			if violates(less, kind) {
				p, removed = less, true
			} else {
				from += size
			}
		}
		if size == 1 && !removed {
			break
		}
		size = max(1, size/2)
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%s\n  APISIM_SEED=%d APISIM_KEEP=%s\n  %+v\n", kind, p.Seed, ids(p.IDs()), p.Shape)
	for _, step := range p.Steps {
		fmt.Fprintf(&s, "  %v\n", step)
	}
	return s.String()
}
