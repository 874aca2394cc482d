//go:build unix

package apisim

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

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
	for _, kind := range sorted(kinds) {
		seeds := kinds[kind]
		line := fmt.Sprintf("%5d programs, invariant %2d: %s\n        seeds %v\n        such as: %.400s", len(seeds), first[kind].Invariant, kind,
			seeds[:min(5, len(seeds))], first[kind].What)
		if o := openKind(kind); o != nil {
			t.Logf("%s\n        known, as seed %d shows: %s", line, o.seed, o.why)
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
