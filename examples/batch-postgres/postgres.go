//go:build unix

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// skipped is the exit code of a program that lacks what it needs.
const skipped = 3

var errNoPostgres = errors.New("skipped: PostgreSQL's server is not installed: on Debian, apt-get install postgresql")

// postgres is a server that listens at a socket in a temporary directory.
type postgres struct {
	dir, bin, dsn string
	user          *syscall.SysProcAttr // the server refuses to run as root
}

// startPostgres makes an empty cluster and starts it, with the settings that a new installation has.
func startPostgres() (*postgres, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // where Debian has it
	if path, err := exec.LookPath("initdb"); err == nil {
		found = append(found, path)
	}
	if len(found) == 0 {
		return nil, errNoPostgres
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		return nil, err
	}
	p := &postgres{dir: dir, bin: filepath.Dir(slices.Max(found)), dsn: "host=" + dir + " port=5432 user=postgres dbname=postgres sslmode=disable"}
	if os.Getuid() == 0 {
		if err := p.becomeServer(); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	if err := p.run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "--no-sync"); err != nil {
		return nil, err
	}
	options := fmt.Sprintf("-k %s -c listen_addresses= -p 5432", dir)
	return p, p.run("pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"), "-o", options, "start")
}

// becomeServer gives the directory to the user postgres, as whom the programs run then.
func (p *postgres) becomeServer() error {
	u, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return err
	}
	p.user = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return os.Chown(p.dir, int(uid), int(gid))
}

func (p *postgres) run(name string, args ...string) error {
	cmd := exec.Command(filepath.Join(p.bin, name), args...) //nolint:gosec // of the installation
	cmd.Dir, cmd.SysProcAttr = p.dir, p.user
	var out bytes.Buffer // a file would be kept open by the server
	if name == "initdb" {
		cmd.Stdout, cmd.Stderr = &out, &out
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, &out)
	}
	return nil
}

func (p *postgres) stop() {
	_ = p.run("pg_ctl", "-D", filepath.Join(p.dir, "data"), "-m", "fast", "-w", "stop")
	_ = os.RemoveAll(p.dir)
}
