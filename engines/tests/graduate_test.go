package tests

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// step is one of examples/graduate: how many processes, and their URLs.
type step struct {
	name  string
	front func(t *testing.T) (front, worker string) // an empty worker: one process has all
}

func steps() []step {
	local := func(parameters func(dir, name string) string) func(*testing.T) (string, string) {
		return func(t *testing.T) (string, string) {
			dir := shortDir(t)
			return "unix://" + dir + "/worker?listen=unix://" + dir + "/front" + parameters(dir, "f"),
				"unix://" + dir + "/front?listen=unix://" + dir + "/worker" + parameters(dir, "w")
		}
	}
	all := []step{
		{"one process", func(*testing.T) (string, string) { return "gochannel:", "" }},
		{"two processes", local(func(string, string) string { return "" })},
		{"by DNS with an outbox", func(t *testing.T) (string, string) {
			dir := shortDir(t)
			front, err := freePort()
			require.NoError(t, err)
			worker, err := freePort()
			require.NoError(t, err)
			return fmt.Sprintf("dns://localhost:%d?listen=127.0.0.1:%d&outbox=%s", worker, front, filepath.Join(dir, "f")),
				fmt.Sprintf("dns://localhost:%d?listen=127.0.0.1:%d&outbox=%s", front, worker, filepath.Join(dir, "w"))
		}},
	}
	for _, s := range subjects() {
		if s.lasting {
			all = append(all, step{s.name, func(t *testing.T) (string, string) {
				f := &fixture{T: t, subject: s, base: s.base(t)}
				return f.url(""), f.url("")
			}})
		}
	}
	return all
}

// buildGraduate builds the example: one binary, so that no line of Go differs between its engines.
func buildGraduate(t *testing.T) string {
	binary := filepath.Join(t.TempDir(), "graduate")
	out, err := exec.Command("go", "build", "-o", binary, "../../examples/graduate").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

// startWorker starts the worker, until the end of the test.
func startWorker(t *testing.T, binary, url string) {
	worker := exec.Command(binary)
	worker.Env = append(os.Environ(), "ENGINE="+url, "ROLE=worker")
	worker.Stderr = os.Stderr
	output, err := worker.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, worker.Start())
	t.Cleanup(func() {
		_ = worker.Process.Signal(syscall.SIGTERM)
		require.NoError(t, worker.Wait())
	})
	line, err := bufio.NewReader(output).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "running\n", line)
}

// front is the process that places orders.
func front(t *testing.T, binary, url, role string, orders int) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary)
	cmd.Env = append(os.Environ(), "ENGINE="+url, "ROLE="+role, fmt.Sprintf("ORDERS=%d", orders))
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(syscall.SIGTERM) }, 10*time.Second
	return cmd
}

// TestGraduate is the example with each of its engines.
func TestGraduate(t *testing.T) {
	binary := buildGraduate(t)
	for _, s := range steps() {
		t.Run(s.name, func(t *testing.T) {
			frontURL, workerURL := s.front(t)
			role := "all"
			if workerURL != "" {
				role = "front"
				startWorker(t, binary, workerURL)
			}
			out, err := front(t, binary, frontURL, role, 50).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), "50 orders: 45 mailed, 5 poisoned")
		})
	}
}

// TestGraduate_OutlastsAnOutage: the engine's servers are killed in the middle, and started again when calls have failed. No order is
// lost, and none is poisoned that is none of nothing.
func TestGraduate_OutlastsAnOutage(t *testing.T) {
	binary := buildGraduate(t)
	o := natsOutage(t)
	url := o.base(t) + "?replicas=3&publish_timeout=1s"
	startWorker(t, binary, url)
	cmd := front(t, binary, url, "front", 1000)
	output, err := cmd.StdoutPipe()
	require.NoError(t, err)
	says, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	said, complaints := bufio.NewReader(output), bufio.NewReader(says)
	line, err := said.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "running\n", line)
	o.kill()
	for line := ""; !strings.Contains(line, "is sent again"); {
		line, err = complaints.ReadString('\n')
		require.NoError(t, err)
	}
	o.restart()
	_, _ = io.Copy(io.Discard, complaints) // to its end
	line, err = said.ReadString('\n')
	require.NoError(t, err)
	require.NoError(t, cmd.Wait())
	require.Equal(t, "1000 orders: 900 mailed, 100 poisoned\n", line)
}
