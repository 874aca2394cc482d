package tests

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// withServers is set by make engines: servers of other programs take seconds to start.
const withServers = "ENGINES_SERVERS"

// errNotAsked means that a run does without servers of other programs.
var errNotAsked = errors.New("make engines starts it")

// program is a server's process with a directory of its own.
type program struct {
	dir  string
	cmd  *exec.Cmd
	port int
	end  func() // before the directory is removed
}

// newProgram makes a directory, owned by a user if there is one of that name and this process may.
func newProgram(engine, owner string) (*program, error) {
	if os.Getenv(withServers) == "" {
		return nil, errNotAsked
	}
	dir, err := os.MkdirTemp("", "engines-"+engine+"-")
	if err != nil {
		return nil, err
	}
	p := &program{dir: dir}
	if p.port, err = freePort(); err != nil {
		return nil, err
	}
	if owner == "" || os.Getuid() != 0 {
		return p, nil
	}
	uid, gid, err := ids(owner)
	if err != nil {
		return nil, err
	}
	return p, os.Chown(dir, uid, gid)
}

func ids(owner string) (uid, gid int, err error) {
	u, err := user.Lookup(owner)
	if err != nil {
		return 0, 0, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	return uid, gid, errors.Join(err1, err2)
}

// command is a command in the directory, as a user if this process may.
func (p *program) command(owner string, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = p.dir, append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid, gid, err := ids(owner); owner != "" && os.Getuid() == 0 && err == nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return cmd
}

// start starts the server, with its output in a file, and waits until its port is open.
func (p *program) start(cmd *exec.Cmd, within time.Duration) error {
	log, err := os.Create(filepath.Join(p.dir, "output"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	for deadline := time.Now().Add(within); ; time.Sleep(20 * time.Millisecond) { // another program's start
		conn, err := net.Dial("tcp", p.address())
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			p.stop()
			return fmt.Errorf("it does not listen after %v: %.2000s", within, text)
		}
	}
}

func (p *program) address() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// stop ends the server and what it has started.
func (p *program) stop() {
	if p.cmd != nil {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		_ = p.cmd.Wait()
	}
	if p.end != nil {
		p.end()
	}
	_ = os.RemoveAll(p.dir)
}

// find is where a program is.
func find(name string, patterns ...string) (string, error) {
	for _, pattern := range patterns {
		if matches, _ := filepath.Glob(pattern); len(matches) > 0 {
			return matches[len(matches)-1], nil
		}
	}
	return exec.LookPath(name)
}

func redisServer(t *testing.T) string {
	return sharedServer(t, "redis", func() (string, func(), error) {
		binary, err := find("redis-server")
		if err != nil {
			return "", nil, err
		}
		p, err := newProgram("redis", "")
		if err != nil {
			return "", nil, err
		}
		err = p.start(p.command("", nil, binary, "--port", strconv.Itoa(p.port), "--bind", "127.0.0.1", "--dir", p.dir,
			"--save", "", "--appendonly", "yes"), 20*time.Second)
		return "redis://" + p.address() + "/0", p.stop, err
	})
}

func postgresServer(t *testing.T) string {
	return sharedServer(t, "postgres", func() (string, func(), error) {
		binary, err := find("postgres", "/usr/lib/postgresql/*/bin/postgres")
		if err != nil {
			return "", nil, err
		}
		p, err := newProgram("postgres", "postgres")
		if err != nil {
			return "", nil, err
		}
		data := filepath.Join(p.dir, "data")
		initdb := p.command("postgres", nil, filepath.Join(filepath.Dir(binary), "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
		if out, err := initdb.CombinedOutput(); err != nil {
			p.stop()
			return "", nil, fmt.Errorf("initdb: %w: %.1000s", err, out)
		}
		err = p.start(p.command("postgres", nil, binary, "-D", data, "-p", strconv.Itoa(p.port), "-c", "listen_addresses=127.0.0.1",
			"-c", "unix_socket_directories="+p.dir, "-c", "max_connections=300"), 30*time.Second)
		for deadline := time.Now().Add(30 * time.Second); err == nil; time.Sleep(50 * time.Millisecond) { // it listens before it answers
			if exec.Command(filepath.Join(filepath.Dir(binary), "pg_isready"), "-h", "127.0.0.1", "-p", strconv.Itoa(p.port)).Run() == nil {
				break
			}
			if time.Now().After(deadline) {
				err = errors.New("it does not answer")
			}
		}
		return "postgres://postgres@" + p.address() + "/postgres", p.stop, err
	})
}

func amqpServer(t *testing.T) string {
	return sharedServer(t, "amqp", func() (string, func(), error) {
		binary, err := find("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")
		if err != nil {
			return "", nil, err
		}
		p, err := newProgram("amqp", "")
		if err != nil {
			return "", nil, err
		}
		dist, err1 := freePort()
		epmd, err2 := freePort()
		if err := errors.Join(err1, err2); err != nil {
			return "", nil, err
		}
		env := []string{
			"HOME=" + p.dir, "ERL_EPMD_PORT=" + strconv.Itoa(epmd), "RABBITMQ_NODENAME=e" + strconv.Itoa(p.port) + "@localhost",
			"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + strconv.Itoa(p.port), "RABBITMQ_DIST_PORT=" + strconv.Itoa(dist),
			"RABBITMQ_MNESIA_BASE=" + p.dir, "RABBITMQ_LOG_BASE=" + p.dir, "RABBITMQ_PID_FILE=" + filepath.Join(p.dir, "pid"),
			"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(p.dir, "plugins"), "RABBITMQ_CONF_ENV_FILE=" + filepath.Join(p.dir, "env"),
		}
		names, err := find("epmd", "/usr/lib/erlang/erts-*/bin/epmd")
		if err != nil {
			return "", nil, err
		}
		server := exec.Command(names, "-port", strconv.Itoa(epmd)) // else Erlang starts one that outlives it
		if err := server.Start(); err != nil {
			return "", nil, err
		}
		p.end = func() {
			_ = server.Process.Kill()
			_ = server.Wait()
		}
		err = p.start(p.command("", env, binary), 60*time.Second)
		return "amqp://" + p.address() + "/", p.stop, err
	})
}
