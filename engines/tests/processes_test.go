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
	// build makes the command that starts the server, and within is how long that may take.
	build  func() *exec.Cmd
	within time.Duration
	// ready waits until a server that listens answers; nil where it does at once.
	ready func() error
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

// start starts the server, with its output in a file, and waits until it answers.
func (p *program) start() error {
	log, err := os.OpenFile(filepath.Join(p.dir, "output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	p.cmd = p.build()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(p.within); ; time.Sleep(20 * time.Millisecond) { // another program's start
		conn, err := net.Dial("tcp", p.address())
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			p.stop()
			return fmt.Errorf("it does not listen after %v: %.2000s", p.within, text)
		}
	}
	if p.ready == nil {
		return nil
	}
	return p.ready()
}

// signal sends a signal to the server and what it has started.
func (p *program) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// kill ends the server as kill -9 does; start starts it again with what it has on disk.
func (p *program) kill() {
	p.signal(syscall.SIGKILL)
	_ = p.cmd.Wait()
}

func (p *program) address() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// stop ends the server and what it has started.
func (p *program) stop() {
	if p.cmd != nil {
		p.kill()
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
		p, err := newRedis("")
		if err != nil {
			return "", nil, err
		}
		return "redis://" + p.address() + "/0", p.stop, nil
	})
}

// newRedis starts Redis in a directory of its own, or in one that is given, with settings as its command line has them.
func newRedis(dir string, settings ...string) (*program, error) {
	binary, err := find("redis-server")
	if err != nil {
		return nil, err
	}
	p, err := newProgram("redis", "")
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = p.dir
	}
	p.within = 60 * time.Second
	p.build = func() *exec.Cmd {
		args := []string{"--port", strconv.Itoa(p.port), "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "yes"}
		return p.command("", nil, binary, append(args, settings...)...)
	}
	return p, p.start()
}

func postgresServer(t *testing.T) string {
	return sharedServer(t, "postgres", func() (string, func(), error) {
		p, err := newPostgres("")
		if err != nil {
			return "", nil, err
		}
		return "postgres://postgres@" + p.address() + "/postgres", p.stop, nil
	})
}

// newPostgres starts PostgreSQL in a directory of its own, or with its data in one that is given, with settings as name=value.
// Its superuser postgres needs no password.
func newPostgres(dir string, settings ...string) (*program, error) {
	binary, err := find("postgres", "/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return nil, err
	}
	p, err := newProgram("postgres", "postgres")
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = p.dir
	}
	data := filepath.Join(dir, "data")
	initdb := p.command("postgres", nil, filepath.Join(filepath.Dir(binary), "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		p.stop()
		return nil, fmt.Errorf("initdb: %w: %.1000s", err, out)
	}
	p.within = 120 * time.Second
	p.build = func() *exec.Cmd {
		args := []string{
			"-D", data, "-p", strconv.Itoa(p.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + p.dir,
			"-c", "max_connections=300",
		}
		for _, s := range settings {
			args = append(args, "-c", s)
		}
		return p.command("postgres", nil, binary, args...)
	}
	p.ready = func() error { // it listens before it answers
		for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if exec.Command(filepath.Join(filepath.Dir(binary), "pg_isready"), "-h", "127.0.0.1", "-p", strconv.Itoa(p.port)).Run() == nil {
				return nil
			}
		}
		return errors.New("it does not answer")
	}
	return p, p.start()
}

func amqpServer(t *testing.T) string {
	return sharedServer(t, "amqp", func() (string, func(), error) {
		p, err := newRabbitMQ("", "")
		if err != nil {
			return "", nil, err
		}
		return "amqp://" + p.address() + "/", p.stop, nil
	})
}

// rabbitMQ is a server with its environment, which its tools need too.
type rabbitMQ struct {
	*program
	env []string
}

// newRabbitMQ starts RabbitMQ in a directory of its own, or with its data in one that is given, with lines of its
// configuration.
func newRabbitMQ(dir, config string) (*rabbitMQ, error) {
	binary, err := find("rabbitmq-server", "/usr/lib/rabbitmq/bin/rabbitmq-server")
	if err != nil {
		return nil, err
	}
	names, err := find("epmd", "/usr/lib/erlang/erts-*/bin/epmd")
	if err != nil {
		return nil, err
	}
	p, err := newProgram("amqp", "")
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = p.dir
	}
	dist, err1 := freePort()
	epmd, err2 := freePort()
	err3 := os.WriteFile(filepath.Join(p.dir, "r.conf"), []byte(config), 0o600)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	r := &rabbitMQ{program: p, env: []string{
		"HOME=" + p.dir, "ERL_EPMD_PORT=" + strconv.Itoa(epmd), "RABBITMQ_NODENAME=e" + strconv.Itoa(p.port) + "@localhost",
		"RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT=" + strconv.Itoa(p.port), "RABBITMQ_DIST_PORT=" + strconv.Itoa(dist),
		"RABBITMQ_MNESIA_BASE=" + dir, "RABBITMQ_LOG_BASE=" + p.dir, "RABBITMQ_PID_FILE=" + filepath.Join(p.dir, "pid"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(p.dir, "plugins"), "RABBITMQ_CONF_ENV_FILE=" + filepath.Join(p.dir, "env"),
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(p.dir, "r.conf"),
	}}
	server := exec.Command(names, "-port", strconv.Itoa(epmd)) // else Erlang starts one that outlives it
	if err := server.Start(); err != nil {
		return nil, err
	}
	p.end = func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}
	p.within = 5 * time.Minute // on a machine that is busy
	p.build = func() *exec.Cmd { return p.command("", r.env, binary) }
	return r, p.start()
}

// ctl runs rabbitmqctl against the server.
func (r *rabbitMQ) ctl(args ...string) error {
	binary, err := find("rabbitmqctl", "/usr/lib/rabbitmq/bin/rabbitmqctl")
	if err != nil {
		return err
	}
	if out, err := r.command("", r.env, binary, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("rabbitmqctl %v: %w: %.1000s", args, err, out)
	}
	return nil
}
