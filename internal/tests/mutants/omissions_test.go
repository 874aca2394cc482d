package mutants

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"os/exec"
	slashpath "path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const module = "github.com/buffstreams/watermill-buffstreams"

var (
	// rewritten are the packages whose statements are left out: those alone that have a file of OMIT_FILES.
	rewritten = strings.Fields(`. framing pool route store internal/acked/sender internal/acked/receiver internal/buffers
		internal/dispatch internal/flow internal/flush internal/hook internal/netio internal/policy internal/session
		storage/outbox storage/dedupe storage/internal/boltfile monitor metrics tracing engines engines/driver
		engines/bridge engines/internal/consume engines/internal/parts engines/nats engines/kafka engines/redis
		engines/amqp engines/postgres cmd/buffstreams cmd/internal/access cmd/internal/ask cmd/internal/bench
		cmd/internal/check cmd/internal/demo cmd/internal/frames cmd/internal/pipe cmd/internal/settings
		cmd/internal/stored cmd/internal/tap cmd/internal/watch`)
	// watching are the packages whose tests may notice: those alone that depend on one that is rewritten.
	watching = strings.Fields(`. framing pool route internal/acked/sender internal/acked/receiver internal/buffers
		internal/dispatch internal/flow internal/flush internal/netio internal/policy internal/session storage/outbox
		storage/dedupe internal/tests internal/tests/components internal/tests/moves internal/tests/hostile
		internal/tests/resources internal/tests/hosts monitor metrics tracing cqrsx engines engines/driver
		engines/bridge engines/internal/consume engines/internal/parts engines/redis engines/postgres engines/tests
		cmd/buffstreams cmd/internal/access cmd/internal/bench cmd/internal/demo cmd/internal/pipe cmd/internal/watch`)
)

const (
	longestTest = 25 * time.Second // what takes longer is not asked
	patience    = time.Minute      // for all tests together, of one omission
)

// check is one test, alone.
type check struct {
	pkg, name string
	took      time.Duration
	reaches   []int // omissions
}

// TestOmissions leaves out OMISSIONS statements of the product, one at a time, and runs the tests that reach each, the fastest first. It
// reports those that no test notices: some make no difference, each other one is a test that is lacking. OMIT_SEED makes another choice,
// and OMIT_FILES, a regular expression, limits it.
func TestOmissions(t *testing.T) {
	count, err := strconv.Atoi(os.Getenv("OMISSIONS"))
	if err != nil {
		t.Skip("runs the tests again and again: OMISSIONS=100 leaves out as many statements")
	}
	seed, _ := strconv.ParseUint(os.Getenv("OMIT_SEED"), 10, 64)
	files := regexp.MustCompile(os.Getenv("OMIT_FILES"))
	o := rewriteAll(t, files)
	checks := o.checks(t)
	chosen := rand.New(rand.NewPCG(seed, 0)).Perm(len(o.all))
	chosen = chosen[:min(count, len(chosen))]
	noticed := 0
	for _, n := range chosen {
		if why := o.unnoticed(t, n, checks); why == "" {
			noticed++
		} else {
			t.Logf("%s:%d %s, %s: %s", o.all[n].file, o.all[n].line, o.all[n].what, why, o.all[n].text)
		}
	}
	t.Logf("noticed: %d of %d", noticed, len(chosen))
}

// omissions are the omissions of all files, and the test binaries that have them.
type omissions struct {
	all      []omission
	overlay  string
	command  string            // cmd/buffstreams, for its tests
	binaries map[string]string // by package
}

func rewriteAll(t *testing.T, matching *regexp.Regexp) *omissions {
	r, dir, replace := &rewriter{}, t.TempDir(), map[string]string{}
	write := func(path, text string) {
		fake := filepath.Join(dir, fmt.Sprint(len(replace), ".go"))
		require.NoError(t, os.WriteFile(fake, []byte(text), 0o600))
		replace[filepath.Join(root(t), path)] = fake
	}
	chosen := map[string]bool{}
	for _, pkg := range rewritten {
		files, err := filepath.Glob(filepath.Join(root(t), pkg, "*.go"))
		require.NoError(t, err)
		for _, f := range files {
			if !strings.HasSuffix(f, "_test.go") {
				path, err := filepath.Rel(root(t), f)
				require.NoError(t, err)
				if matching.MatchString(path) {
					write(path, r.rewrite(t, path))
					chosen[slashpath.Join(module, pkg)] = true
				}
			}
		}
	}
	own, err := os.ReadFile("testdata/omit.go.txt")
	require.NoError(t, err)
	write(omitPackage+"/omit.go", string(own))
	b, err := json.Marshal(map[string]any{"Replace": replace})
	require.NoError(t, err)
	list := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(list, b, 0o600))
	o := &omissions{r.all, list, filepath.Join(dir, "buffstreams"), map[string]string{}}
	for _, pkg := range watching {
		if slices.ContainsFunc(dependencies(t, pkg), func(path string) bool { return chosen[path] }) {
			o.binaries[pkg] = build(t, probe{pkg: pkg}, list)
		}
	}
	if o.binaries["cmd/buffstreams"] != "" {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-overlay", list, "-o", o.command, "./cmd/buffstreams")
		cmd.Dir = root(t)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
	return o
}

// dependencies are the import paths of what a package's tests have in them, itself included.
func dependencies(t *testing.T, pkg string) []string {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-test", ".")
	cmd.Dir = filepath.Join(root(t), filepath.FromSlash(pkg)) // in its own module
	out, err := cmd.Output()
	require.NoError(t, err, pkg)
	return strings.Split(string(out), "\n")
}

// checks runs each test alone, and returns those that passed: the fastest first, and one package's together where they take about as long.
func (o *omissions) checks(t *testing.T) (all []check) {
	reached := filepath.Join(t.TempDir(), "reached")
	for pkg := range o.binaries {
		names, err := o.start(t, pkg, buildLimit, nil, "-test.list", "^(Test|Example)")
		require.NoError(t, err)
		for name := range strings.FieldsSeq(names) {
			require.NoError(t, os.WriteFile(reached, make([]byte, len(o.all)), 0o600))
			began := time.Now()
			if _, err := o.start(t, pkg, longestTest, []string{"OMIT_REACHED=" + reached}, "-test.run", "^"+name+"$"); err != nil {
				t.Logf("not asked: %s of %s: %v", name, pkg, err)
				continue
			}
			c := check{pkg: pkg, name: name, took: time.Since(began)}
			b, err := os.ReadFile(reached)
			require.NoError(t, err)
			for n, yes := range b {
				if yes == 1 {
					c.reaches = append(c.reaches, n)
				}
			}
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b check) int {
		return cmp.Or(cmp.Compare(bits.Len64(uint64(a.took)), bits.Len64(uint64(b.took))), strings.Compare(a.pkg, b.pkg))
	})
	return all
}

// unnoticed says why no test noticed omission n; "" if one did.
func (o *omissions) unnoticed(t *testing.T, n int, checks []check) (why string) {
	checks = slices.DeleteFunc(slices.Clone(checks), func(c check) bool { _, ok := slices.BinarySearch(c.reaches, n); return !ok })
	if len(checks) == 0 {
		return "no test reaches it"
	}
	began := time.Now()
	for len(checks) > 0 {
		if time.Since(began) > patience {
			return "not all tests ran"
		}
		pkg, names, took := checks[0].pkg, []string(nil), time.Duration(0)
		for len(checks) > 0 && checks[0].pkg == pkg && took < 2*time.Second {
			names, took = append(names, checks[0].name), took+checks[0].took
			checks = checks[1:]
		}
		run := []string{"-test.failfast", "-test.run", "^(" + strings.Join(names, "|") + ")$"}
		if _, err := o.start(t, pkg, 6*took+20*time.Second, []string{"OMIT=" + strconv.Itoa(n)}, run...); err != nil {
			return ""
		}
	}
	return "all tests passed"
}

// start runs a test binary with little memory: what is left out can be what ends a loop.
func (o *omissions) start(t *testing.T, pkg string, limit time.Duration, env []string, args ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), limit+10*time.Second)
	defer cancel()
	args = append([]string{"-c", `ulimit -v 5000000; exec "$0" "$@"`, o.binaries[pkg], "-test.timeout", limit.String()}, args...)
	cmd := exec.CommandContext(ctx, "sh", args...)
	cmd.Dir = filepath.Join(root(t), filepath.FromSlash(pkg))
	cmd.Env = append(append(os.Environ(), simulation.env), env...)
	// Tests that build the command build it with the omissions, or get the binary that has them.
	cmd.Env = append(cmd.Env, "GOFLAGS=-overlay="+o.overlay, "BUFFSTREAMS_COMMAND="+o.command)
	cmd.WaitDelay = time.Second // its children may hold the pipe
	b, err := cmd.Output()
	return string(b), err
}
