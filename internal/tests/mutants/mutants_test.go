package mutants

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	buildLimit = 5 * time.Minute
	runLimit   = 2 * time.Minute
)

// failed finds the tests of the top level that failed.
var failed = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)

// TestMutants_Fit holds that each mutant still is one change of the code as it is now.
func TestMutants_Fit(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		require.False(t, names[m.name], "%s: two mutants have this name", m.name)
		names[m.name] = true
		require.NotContains(t, m.name, ",", "MUTANT cannot name it")
		mutated(t, m)
	}
}

// TestMutants holds that each mutant makes the tests fail that it names, and that they pass without it.
func TestMutants(t *testing.T) {
	if os.Getenv("MUTANTS") != "1" {
		t.Skip("builds and runs the tests once for each mutant, which takes minutes: MUTANTS=1 runs them, MUTANT=name,name some")
	}
	chosen := mutants
	if names := os.Getenv("MUTANT"); names != "" {
		wanted := strings.Split(names, ",")
		chosen = slices.DeleteFunc(slices.Clone(mutants), func(m mutant) bool { return !slices.Contains(wanted, m.name) })
		require.Len(t, chosen, len(wanted), "no mutant has one of these names: %q", wanted)
	}
	healthy(t, chosen)
	var table strings.Builder
	for _, m := range chosen {
		t.Run(m.name, func(t *testing.T) {
			began := time.Now()
			caught := hunt(t, m)
			line := fmt.Sprintf("| %s | %s | %.1f |\n", m.name, caught, time.Since(began).Seconds())
			table.WriteString(line)
			t.Log(line)
		})
	}
	t.Logf("\n| mutant | caught by | seconds |\n|---|---|---:|\n%s", &table)
}

// healthy holds that every probe passes without a mutant: red would prove nothing otherwise.
func healthy(t *testing.T, chosen []mutant) {
	built, ran := map[string]string{}, map[probe]bool{}
	for _, m := range chosen {
		p := m.probe
		if ran[p] {
			continue
		}
		ran[p] = true
		if built[p.pkg] == "" {
			built[p.pkg] = build(t, p, "")
		}
		out, err := p.start(t, built[p.pkg])
		require.NoError(t, err, "%s %s fails without any mutant:\n%s", p.pkg, p.run, tail(out))
		require.Contains(t, out, "--- PASS: ", "%s has no test that %s matches", p.pkg, p.run)
	}
}

// hunt builds and runs the tests with a mutant, and returns those that caught it.
func hunt(t *testing.T, m mutant) string {
	binary := build(t, m.probe, overlay(t, m))
	out, err := m.probe.start(t, binary)
	require.Error(t, err, "it survived %s in %s", m.probe.run, m.probe.pkg)
	require.NotContains(t, out, "panic: test timed out", "a hang is a poor proof: find a test that fails")
	var exit *exec.ExitError
	require.ErrorAs(t, err, &exit)
	var caught []string
	for _, match := range failed.FindAllStringSubmatch(out, -1) {
		caught = append(caught, match[1])
	}
	require.NotEmpty(t, caught, "no test failed, but something else:\n%s", tail(out))
	return strings.Join(caught, ", ")
}

// mutated returns the path of the mutant's file, and its new text.
func mutated(t *testing.T, m mutant) (path, text string) {
	path = filepath.Join(root(t), filepath.FromSlash(m.file))
	code, err := os.ReadFile(path)
	require.NoError(t, err, m.name)
	require.Equal(t, 1, strings.Count(string(code), m.old), "%s: in %s, the text to replace does not occur once:\n%s", m.name, m.file, m.old)
	return path, strings.Replace(string(code), m.old, m.new, 1)
}

// overlay writes what -overlay takes. The code itself is never touched.
func overlay(t *testing.T, m mutant) string {
	dir := t.TempDir()
	path, text := mutated(t, m)
	fake, list := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(fake, []byte(text), 0o600))
	b, err := json.Marshal(map[string]map[string]string{"Replace": {path: fake}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(list, b, 0o600))
	return list
}

// build compiles the probe's package by itself: a mutant that does not compile was not caught by a test.
func build(t *testing.T, p probe, overlay string) (binary string) {
	binary = filepath.Join(t.TempDir(), "probe.test")
	args := []string{"test", "-c", "-vet=off", "-o", binary}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	ctx, cancel := context.WithTimeout(t.Context(), buildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Dir = filepath.Join(root(t), filepath.FromSlash(p.pkg)) // in its own module
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s does not build:\n%s", p.pkg, tail(string(out)))
	return binary
}

// start runs the probe as go test does, in the directory of its package.
func (p probe) start(t *testing.T, binary string) (out string, err error) {
	ctx, cancel := context.WithTimeout(t.Context(), runLimit+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run", p.run, "-test.v", "-test.failfast", "-test.timeout", runLimit.String())
	cmd.Dir = filepath.Join(root(t), filepath.FromSlash(p.pkg))
	cmd.Env = append(os.Environ(), p.env)
	b, err := cmd.CombinedOutput()
	return string(b), err
}

func root(t *testing.T) string {
	dir, err := filepath.Abs("../../..")
	require.NoError(t, err)
	return dir
}

// tail is the end of an output, where the reason is.
func tail(s string) string { return s[max(0, len(s)-2000):] }
