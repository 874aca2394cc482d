package drill

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/monitor"
)

// process is one process of the drill.
type process struct {
	role  role
	cmd   *exec.Cmd
	input io.WriteCloser
}

// start starts a process and waits until it is ready. It is killed at the end of the test.
func start(t *testing.T, r role) *process {
	t.Helper()
	if r.Monitor == "" {
		r.Monitor = freeAddress(t)
	}
	r.Traces = filepath.Join(t.TempDir(), "spans")
	p := &process{role: r}
	p.start(t)
	t.Cleanup(p.kill)
	return p
}

func (p *process) start(t *testing.T) {
	t.Helper()
	text, err := json.Marshal(p.role)
	require.NoError(t, err)
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), roleEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	if p.role.Disk > 0 {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS} // the mount is its own
		if os.Geteuid() != 0 {
			p.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			p.cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
			p.cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
		}
	}
	p.input, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan(), "a process has not started: %s", text)
}

// tell gives a command.
func (p *process) tell(t *testing.T, command string) {
	t.Helper()
	_, err := fmt.Fprintln(p.input, command)
	require.NoError(t, err)
}

// kill ends the process as if its machine had lost power, and waits for that.
func (p *process) kill() {
	if p.role.Hangs { // it must let its disk go on, and ends when it is told nothing more
		_ = p.input.Close()
		_ = p.cmd.Wait()
		return
	}
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// host is the loopback address of this run. Ports of 127.0.0.1 may be taken by a connection when a process starts again.
func host() net.IP {
	pid := os.Getpid()
	return net.IPv4(127, byte(64+pid>>8%64), byte(pid), 1)
}

// freeAddress is one at which nothing listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", net.JoinHostPort(host().String(), "0"))
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return ln.Addr().String()
}

// command runs the command buffstreams.
type command struct{ binary string }

func buildCommand(t *testing.T) command {
	t.Helper()
	c := command{t.TempDir() + "/buffstreams"}
	build := exec.Command("go", "build", "-o", c.binary, "./buffstreams")
	build.Dir = "../../../../cmd"
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return c
}

// check runs a check, and returns its line and its exit code.
func (c command) check(args ...string) (line string, code int) {
	cmd := exec.Command(c.binary, append([]string{"check"}, args...)...)
	out, _ := cmd.Output() // the code says it
	return string(out), cmd.ProcessState.ExitCode()
}

// within calls look until it returns true, and returns how long that took. It returns false when the time is over.
func within(limit time.Duration, look func() bool) (time.Duration, bool) {
	began := time.Now()
	for {
		if look() {
			return time.Since(began), true
		}
		if time.Since(began) > limit {
			return time.Since(began), false
		}
		time.Sleep(500 * time.Millisecond) // what is looked at is another process
	}
}

// stuck returns what the page of the process shows as stuck.
func (p *process) stuck() []monitor.Stuck {
	r, err := http.Get("http://" + p.role.Monitor + "/stats")
	if err != nil {
		return nil
	}
	defer func() { _ = r.Body.Close() }()
	var s monitor.Stats
	if json.NewDecoder(r.Body).Decode(&s) != nil {
		return nil
	}
	return s.Stuck
}
