//go:build unix

package apisim

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// replay plays one seed, up to APISIM_TRIES times until it fails, and shows what happened.
func replay(t *testing.T, seed uint64) {
	p := Generate(seed)
	var keep []int
	if s := os.Getenv("APISIM_KEEP"); s != "" {
		keep = parseIDs(s)
		p = p.Keep(keep)
	}
	for try := range testkit.EnvNumber(t, "APISIM_TRIES", 10) {
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

// violates reports whether a program breaks a rule, in some tries.
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
