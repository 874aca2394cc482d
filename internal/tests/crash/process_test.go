//go:build linux

package crash

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// childCommand as the first argument makes this binary a process to be killed; the second is its assignment.
const childCommand = "crash-child"

// patience is how long what must happen may take on a loaded machine.
const patience = 30 * time.Second

// assignment is what a child is told.
type assignment struct {
	Role    string // publisher or subscriber
	Dir     string // its own
	Address string // where the subscriber listens

	Name string   // of the publisher
	Next []uint64 // the publisher's next number, by topic

	Memory      memory
	MaxInFlight int
}

// process is a child seen from its parent. A line that it writes reaches the parent even if it is killed at once.
type process struct {
	t      *testing.T
	role   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser // its end tells the child that its parent is gone
	stderr bytes.Buffer
	ready  chan struct{} // closed when it is at work
	rested chan struct{} // closed when a publisher has nothing pending
	ended  chan struct{} // closed when everything it wrote was heard
	lines  []string      // that nobody understood
}

// start runs a child. hear gets each of its lines in words, and tells whether it understood them.
func start(t *testing.T, a assignment, hear func(words []string) bool) *process {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	told, err := json.Marshal(a)
	require.NoError(t, err)
	p := &process{
		t: t, role: a.Role + " " + a.Name, cmd: exec.Command(exe, childCommand, string(told)),
		ready: make(chan struct{}), rested: make(chan struct{}), ended: make(chan struct{}),
	}
	p.cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1") // a race ends the child before it is killed, which is noticed
	p.cmd.Stderr = &p.stderr
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	go p.listen(out, hear) // ends with the child; ended tells
	return p
}

func (p *process) listen(out io.Reader, hear func([]string) bool) {
	defer close(p.ended)
	for s := bufio.NewScanner(out); s.Scan(); {
		switch words := strings.Fields(s.Text()); {
		case len(words) == 1 && words[0] == "ready":
			close(p.ready)
		case len(words) == 1 && words[0] == "rested":
			close(p.rested)
		case !hear(words):
			p.lines = append(p.lines, s.Text())
		}
	}
}

// await waits until the child has said something: ready, or rested.
func (p *process) await(said <-chan struct{}) {
	p.t.Helper()
	select {
	case <-said:
	case <-p.ended:
		p.t.Fatalf("%s ended by itself: %v\n%s", p.role, p.cmd.Wait(), &p.stderr)
	case <-time.After(2 * patience):
		p.hangs()
	}
}

// order gives the child an order.
func (p *process) order() {
	p.t.Helper()
	_, err := io.WriteString(p.stdin, "\n")
	require.NoError(p.t, err, p.role)
}

// hangs fails the test with the child's stacks.
func (p *process) hangs() {
	p.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGQUIT)
	<-p.ended
	p.t.Fatalf("%s hangs: %v\n%s", p.role, p.cmd.Wait(), &p.stderr)
}

// shoot sends the signal; bury waits for the end. In between others can be shot.
func (p *process) shoot() { require.NoError(p.t, p.cmd.Process.Kill(), p.role) }

// bury collects what the child still said, and sees to it that it was alive when it was shot.
func (p *process) bury() {
	p.t.Helper()
	<-p.ended
	_ = p.cmd.Wait() // it was killed, and says so
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(p.t, status.Signaled() && status.Signal() == syscall.SIGKILL, "%s ended by itself: %v\n%s", p.role, p.cmd.ProcessState, &p.stderr)
	require.Empty(p.t, p.lines, p.role)
}

// dismiss waits for the end of a child that has its last order.
func (p *process) dismiss() {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(2 * patience):
		p.hangs()
	}
	require.NoError(p.t, p.cmd.Wait(), "%s\n%s", p.role, &p.stderr)
	require.Empty(p.t, p.lines, p.role)
}

// discard ends a child that a failed test left.
func (p *process) discard() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		<-p.ended
		_ = p.cmd.Wait()
	}
}
