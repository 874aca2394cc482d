package clients

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// patience is for what must happen.
const patience = 2 * time.Minute

// language is an implementation: how its peer program is started.
type language struct {
	name string
	// command returns a peer's command line; the test is skipped or fails where the language is missing.
	command func(t *testing.T) []string
	env     []string
}

func languages() []language {
	return []language{
		{name: "go", command: func(t *testing.T) []string {
			t.Helper()
			self, err := os.Executable()
			require.NoError(t, err)
			return []string{self}
		}, env: []string{asPeer + "=1"}},
		{name: "python", command: pythonPeer, env: []string{"PYTHONPATH=" + filepath.Join(clientsDir, "python", "src"), "PYTHONDONTWRITEBYTECODE=1"}},
		{name: "typescript", command: typescriptPeer},
	}
}

const clientsDir = "../../../clients"

// missing ends a test for want of a program.
func missing(t *testing.T, what string) {
	t.Helper()
	t.Skip(what)
}

func pythonPeer(t *testing.T) []string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		missing(t, "python3 is not installed: clients/python needs 3.11 or later")
	}
	check := exec.CommandContext(t.Context(), python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))")
	if err := check.Run(); err != nil {
		missing(t, "python3 is older than 3.11, which clients/python needs")
	}
	return []string{python, filepath.Join(clientsDir, "python", "tests", "peer.py")}
}

// process is a peer that runs.
type process struct {
	t     *testing.T
	name  string
	host  string // of a subscriber: where it listens
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan string // of its output; closed when that ends
	ended sync.Once
	err   error
}

// start starts a peer. Its lines are to be read until they end.
func (l language) start(t *testing.T, args ...string) *process {
	t.Helper()
	command := l.command(t)
	p := &process{t: t, name: l.name + " " + args[0], lines: make(chan string, 1<<16)}
	p.cmd = exec.Command(command[0], append(command[1:], args...)...)
	p.cmd.Env = append(os.Environ(), l.env...)
	p.cmd.Stderr = os.Stderr
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go func() { // ends with the process, which kill and wait see to
		defer close(p.lines)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.lines <- lines.Text()
		}
	}()
	t.Cleanup(p.kill)
	return p
}

// startSub starts a subscriber at a host of its own: when it has ended, no other test's subscriber gets its port while its publisher
// still looks for it there.
func (l language) startSub(t *testing.T) *process {
	t.Helper()
	host := testkit.Host()
	p := l.start(t, "sub", host+":0", "orders")
	p.host = host
	return p
}

// next is the next line of output.
func (p *process) next() string {
	p.t.Helper()
	select {
	case line, ok := <-p.lines:
		require.True(p.t, ok, "%s has ended", p.name)
		return line
	case <-time.After(patience):
		require.Fail(p.t, p.name+" says nothing")
		return ""
	}
}

// listening waits until a subscriber says where it listens.
func (p *process) listening() string {
	p.t.Helper()
	port, ok := strings.CutPrefix(p.next(), "listening ")
	require.True(p.t, ok)
	return p.host + ":" + port
}

func (p *process) write(line string) {
	_, _ = fmt.Fprintln(p.stdin, line) // one that was killed reads nothing: the account finds what is missing
}

func (p *process) kill() {
	p.ended.Do(func() {
		_ = p.cmd.Process.Kill()
		for range p.lines {
		}
		p.err = p.cmd.Wait()
	})
}

// stop stops the process without a word. A signal alone takes a moment, in which messages are handled.
func (p *process) stop() {
	pid := p.cmd.Process.Pid
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGSTOP))
	var status syscall.WaitStatus
	_, err := syscall.Wait4(pid, &status, syscall.WUNTRACED, nil)
	require.NoError(p.t, err)
	require.True(p.t, status.Stopped())
}

// killed kills the process and returns what it has still said.
func (p *process) killed() (rest []string) {
	p.ended.Do(func() {
		_ = p.cmd.Process.Kill()
		for line := range p.lines {
			rest = append(rest, line)
		}
		p.err = p.cmd.Wait()
	})
	return rest
}

// finished waits for the end that a process comes to by itself, or by SIGTERM, and returns what it has still said.
func (p *process) finished(terminate bool) (rest []string) {
	p.t.Helper()
	if terminate {
		require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	}
	timer := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	p.ended.Do(func() {
		for line := range p.lines {
			rest = append(rest, line)
		}
		p.err = p.cmd.Wait()
	})
	require.NoError(p.t, p.err, p.name)
	return rest
}

// processorTime is what each of so many messages took of it. The process has finished.
func (p *process) processorTime(messages int) time.Duration {
	return (p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()) / time.Duration(messages)
}
