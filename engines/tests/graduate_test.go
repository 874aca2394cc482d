package tests

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// TestGraduate is the example with each of its engines: one binary, so that no line of Go differs.
func TestGraduate(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "graduate")
	out, err := exec.Command("go", "build", "-o", binary, "../../examples/graduate").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, s := range steps() {
		t.Run(s.name, func(t *testing.T) {
			frontURL, workerURL := s.front(t)
			role := "all"
			if workerURL != "" {
				role = "front"
				worker := exec.Command(binary)
				worker.Env = append(os.Environ(), "ENGINE="+workerURL, "ROLE=worker")
				worker.Stderr = os.Stderr
				output, err := worker.StdoutPipe()
				require.NoError(t, err)
				require.NoError(t, worker.Start())
				defer func() { require.NoError(t, worker.Wait()) }()
				defer func() { _ = worker.Process.Signal(syscall.SIGTERM) }()
				line, err := bufio.NewReader(output).ReadString('\n')
				require.NoError(t, err)
				require.Equal(t, "running\n", line)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			front := exec.CommandContext(ctx, binary)
			front.Env = append(os.Environ(), "ENGINE="+frontURL, "ROLE="+role, "ORDERS=50")
			front.Cancel, front.WaitDelay = func() error { return front.Process.Signal(syscall.SIGTERM) }, 10*time.Second
			out, err := front.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), "50 orders: 45 mailed, 5 poisoned")
		})
	}
}
