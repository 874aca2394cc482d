package drive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// process is a child seen from its parent. It is a Receiver where the child is one.
type process struct {
	cmd        *exec.Cmd
	stdin      io.WriteCloser
	complaints bytes.Buffer
	address    string
	last       atomic.Pointer[progress]
	answers    chan news // those that are not progress; closed when the child says no more
	wg         sync.WaitGroup
}

// spawn starts a child and waits until it is ready.
func spawn(j job) (*process, error) {
	arg, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(exe, ChildArg, string(arg)), answers: make(chan news, 1)}
	p.last.Store(&progress{})
	p.cmd.Stderr = &p.complaints
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	p.wg.Go(func() { p.listen(json.NewDecoder(stdout)) }) // ends with the child's output
	n, err := p.answer()
	if err == nil && n.Address == nil {
		err = errors.New("drive: a process did not begin with its address")
	}
	if err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.address = *n.Address
	return p, nil
}

func (p *process) listen(d *json.Decoder) {
	defer close(p.answers)
	for {
		var n news
		if d.Decode(&n) != nil {
			return
		}
		if n.Progress != nil {
			p.last.Store(n.Progress)
			continue
		}
		p.answers <- n
	}
}

// spawnPatience is long enough for ten thousand connections.
const spawnPatience = 60 * time.Second

func (p *process) answer() (news, error) {
	select {
	case n, ok := <-p.answers:
		if !ok {
			return n, errors.New("drive: a process ended early")
		}
		return n, nil
	case <-time.After(spawnPatience):
		return news{}, errors.New("drive: a process does not answer")
	}
}

// ask sends a command and waits for the answer.
func (p *process) ask(command string) (news, error) {
	if _, err := io.WriteString(p.stdin, command+"\n"); err != nil {
		return news{}, err
	}
	return p.answer()
}

// Address implements peers.Receiver.
func (p *process) Address() string { return p.address }

// Close ends the child, and reports what it complained about.
func (p *process) Close() error {
	_ = p.stdin.Close() // it has ended already, or ends now
	stuck := time.AfterFunc(spawnPatience, func() { _ = p.cmd.Process.Kill() })
	defer stuck.Stop()
	for range p.answers { // nobody waits for them any more
	}
	p.wg.Wait()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("drive: a process failed: %w: %s", err, strings.TrimSpace(p.complaints.String()))
	}
	return nil
}

func (p *process) progress() progress { return *p.last.Load() }

func (p *process) arrivals() (measure.Arrivals, error) {
	n, err := p.ask(askArrivals)
	if err != nil || n.Arrivals == nil {
		return measure.Arrivals{}, orElse(err, "drive: no account came")
	}
	return *n.Arrivals, nil
}

func (p *process) memory() (measure.Memory, error) {
	n, err := p.ask(askMemory)
	if err != nil || n.Memory == nil {
		return measure.Memory{}, orElse(err, "drive: no memory figures came")
	}
	return *n.Memory, nil
}

// Apart says where the parts of a turn run that are not in this process.
type Apart struct {
	Broker bool // the NATS server is a third process; otherwise it is with the receiving end
}

// StreamApart is Stream with the receiving end in a process of its own.
func StreamApart(ctx context.Context, p peers.Peer, s peers.Setup, a Apart, l Load, d time.Duration) (Figures, error) {
	l.setDefaults()
	s.Senders = l.Lanes
	runtime.GC() // what earlier turns left
	if a.Broker {
		b, err := spawn(job{Role: broker, Setup: s})
		if err != nil {
			return nil, err
		}
		defer func() { _ = b.Close() }() // it holds nothing that counts
		s.Broker = b.Address()
	}
	to, err := spawn(job{Role: receive, Peer: p.Name, Setup: s})
	if err != nil {
		return nil, err
	}
	return stream(ctx, p, s, l, d, to, measure.NewTally(l.Lanes, s.Size), to)
}

// RoundTripApart is RoundTrip with the receiving end in a process of its own.
func RoundTripApart(ctx context.Context, p peers.Peer, s peers.Setup, d time.Duration) (Figures, error) {
	s.Senders = 1
	runtime.GC() // what earlier turns left
	to, err := spawn(job{Role: receive, Peer: p.Name, Setup: s})
	if err != nil {
		return nil, err
	}
	return roundTrip(ctx, p, s, d, to, measure.NewTally(1, s.Size), to)
}

// orElse is err, or what is wrong without one.
func orElse(err error, otherwise string) error {
	if err != nil {
		return err
	}
	return errors.New(otherwise)
}
