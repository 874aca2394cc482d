// Package examples holds that each example does what its expected output says.
package examples

import (
	"bufio"
	"context"
	"errors"
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

// patience bounds one example.
const patience = 2 * time.Minute

// skipped is the exit code of an example that lacks what it needs, and says so.
const skipped = 3

// programs is the directory where TestMain puts all examples.
var programs string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "examples")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out, err := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./...").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s\n", err, out)
		return 1
	}
	programs = dir
	return m.Run()
}

func TestExamples_ExpectedOutput(t *testing.T) {
	expected, err := filepath.Glob("*/expected_output.txt")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(expected), 10)
	for _, file := range expected {
		name := filepath.Dir(file)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(programs, name))
			var errs strings.Builder
			cmd.Stderr = &errs
			out, err := cmd.Output()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == skipped {
				t.Skip(errs.String())
			}
			require.NoError(t, err, errs.String())
			if errs.Len() > 0 {
				t.Log(errs.String())
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			if name == "gochannel" { // which keeps no order
				require.Equal(t, sorted(string(want)), sorted(string(out)))
				return
			}
			require.Equal(t, string(want), string(out))
		})
	}
}

func sorted(text string) []string { return slices.Sorted(slices.Values(strings.Split(text, "\n"))) }

// TestExamples_Validate does what Watermill's own validation of examples does: the command's output has a line.
func TestExamples_Validate(t *testing.T) {
	files, err := filepath.Glob("pubsubs/*/.validate_example.yml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	field := regexp.MustCompile(`(?m)^(\w+): "?(.*?)"?$`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		fields := map[string]string{}
		for _, m := range field.FindAllStringSubmatch(string(text), -1) {
			fields[m[1]] = m[2]
		}
		require.Equal(t, "go run .", fields["validation_cmd"])
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel() //nolint:gocritic // few
		cmd := exec.CommandContext(ctx, filepath.Join(programs, filepath.Base(filepath.Dir(file))))
		output, err := cmd.StderrPipe() // package log writes there
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(output)
		for lines.Scan() && !strings.Contains(lines.Text(), fields["expected_output"]) {
		}
		require.Contains(t, lines.Text(), fields["expected_output"])
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait(), "it runs until it is killed")
	}
}

// TestExamples_ReadmeIsComplete holds the list of examples, and the diff, of README.md.
func TestExamples_ReadmeIsComplete(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	mains, err := filepath.Glob("*/main.go")
	require.NoError(t, err)
	nested, err := filepath.Glob("pubsubs/*/main.go")
	require.NoError(t, err)
	for _, p := range slices.Concat(mains, nested) {
		require.Contains(t, string(readme), "`go run ./"+filepath.ToSlash(filepath.Dir(p))+"`")
	}
	diff, _ := exec.CommandContext(t.Context(), "diff", "-U1", "--label", "gochannel/main.go", "--label", "two-processes/main.go",
		"gochannel/main.go", "two-processes/main.go").Output() // exits with 1, as they differ
	require.NotEmpty(t, diff)
	require.Contains(t, string(readme), "```diff\n"+string(diff)+"```\n")
}
