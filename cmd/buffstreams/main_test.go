package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The tests run the command as its users do: as processes.
var (
	binary     string
	buildFlags []string
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if binary = os.Getenv("BUFFSTREAMS_COMMAND"); binary != "" { // it was built with what the caller wants
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "buffstreams")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "buffstreams")
	args := append([]string{"build", "-o", binary}, buildFlags...)
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		_, _ = os.Stderr.Write(out)
		panic(err)
	}
	return m.Run()
}

// limit is how long any process of a test may take.
const limit = 2 * time.Minute

// process is a command that runs. Its standard error is read line by line.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *spool       // nil if the output goes to a file
	lines  chan string  // of standard error
	stderr bytes.Buffer // whole once lines is closed
}

// start runs the command with its output in a pipe, or in the file that is given.
func start(t *testing.T, output *os.File, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(binary, args...), lines: make(chan string, 1024)}
	var err error
	p.stdin, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	if output != nil {
		p.cmd.Stdout = output
	} else {
		p.stdout = newSpool()
		p.cmd.Stdout = p.stdout
	}
	stderr, err := p.cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.cmd.Start())
	watchdog := time.AfterFunc(limit, func() {
		_ = p.cmd.Process.Kill()
		if p.stdout != nil {
			p.stdout.end()
		}
	})
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_, _ = p.cmd.Process.Wait()
		watchdog.Stop()
	})
	go func() { // ends with the process
		defer close(p.lines)
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			p.stderr.WriteString(scanner.Text() + "\n")
			p.lines <- scanner.Text()
		}
	}()
	return p
}

// startSub runs sub at a topic and returns it with the address that it listens at.
func startSub(t *testing.T, output *os.File, topic string, args ...string) (*process, string) {
	t.Helper()
	p := start(t, output, append([]string{"sub", topic}, args...)...)
	return p, p.awaitLine("listening at ")
}

// awaitLine returns what follows a text on standard error.
func (p *process) awaitLine(text string) string {
	p.t.Helper()
	for line := range p.lines {
		if _, rest, ok := strings.Cut(line, text); ok {
			return rest
		}
	}
	p.t.Fatalf("%v ended without %q: %s", p.cmd.Args, text, p.stderr.String())
	return ""
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(sig))
}

// wait returns the rest of the output, and the exit code.
func (p *process) wait() (stdout string, code int) {
	p.t.Helper()
	for range p.lines {
	}
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		require.NoError(p.t, err)
	}
	if p.stdout != nil {
		stdout = p.stdout.rest()
	}
	return stdout, p.cmd.ProcessState.ExitCode()
}

// spool takes all that a process prints, so that it never has to wait for its reader.
type spool struct {
	mu   sync.Mutex
	more sync.Cond
	data []byte
	over bool // nobody is to wait any more
}

func (s *spool) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.more.Broadcast()
}

func newSpool() *spool {
	s := &spool{}
	s.more.L = &s.mu
	return s
}

func (s *spool) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data = append(s.data, b...)
	s.more.Broadcast()
	return len(b), nil
}

// line waits for a whole line and takes it out.
func (s *spool) line() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if i := bytes.IndexByte(s.data, '\n'); i >= 0 {
			line := string(s.data[:i+1])
			s.data = s.data[i+1:]
			return line
		}
		if s.over {
			return ""
		}
		s.more.Wait()
	}
}

func (s *spool) rest() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.data)
}

// runCommand runs the command to its end.
func runCommand(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	p := start(t, nil, args...)
	_, _ = io.WriteString(p.stdin, stdin) // it may end before it has read all
	_ = p.stdin.Close()
	stdout, code = p.wait()
	return stdout, p.stderr.String(), code
}

// requireOneLine is what every error looks like.
func requireOneLine(t *testing.T, stderr string, parts ...string) {
	t.Helper()
	require.Equal(t, 1, strings.Count(stderr, "\n"), "want one line, got:\n%s", stderr)
	require.True(t, strings.HasPrefix(stderr, "buffstreams: "), stderr)
	for _, part := range parts {
		require.Contains(t, stderr, part)
	}
}

// readAll reads to the end of a connection, as text.
func readAll(r io.Reader) (string, error) {
	b, err := io.ReadAll(r)
	return string(b), err
}
