package drive

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// ChildArg is the first argument of a process that a benchmark has started; the second is its job.
const ChildArg = "benchmark-child"

// role is what a child is there for.
type role string

const (
	receive role = "receive" // the receiving end of a peer
	broker  role = "broker"  // a NATS server
	herd    role = "herd"    // many sending ends, each with a connection of its own
	topics  role = "topics"  // a listener at which topics are declared
)

// job is what a child has to do.
type job struct {
	Role  role        `json:"role"`
	Peer  string      `json:"peer"`
	Setup peers.Setup `json:"setup"`

	// Of a herd: what it dials, how often, and what it then does.
	Address     string `json:"address"`
	Connections int    `json:"connections"`
	Load        Load   `json:"load"`
}

// Commands of a parent, one a line.
const (
	askArrivals = "arrivals"
	askMemory   = "memory"
	askGo       = "go"   // a herd begins to send
	askHalt     = "halt" // it stops, and answers with what it has sent
	askMore     = "more" // a listener declares its topics
)

// news is what a child tells its parent. Exactly one field is set.
type news struct {
	Address  *string           `json:"address,omitempty"` // first of all: it is ready
	Progress *progress         `json:"progress,omitempty"`
	Arrivals *measure.Arrivals `json:"arrivals,omitempty"`
	Memory   *measure.Memory   `json:"memory,omitempty"`
	Sent     *uint64           `json:"sent,omitempty"`
	Done     bool              `json:"done,omitempty"`
}

// reportEvery is how often a receiving end tells how far it is, if it got further. Adding up thousands of senders takes
// a while.
func reportEvery(senders int) time.Duration {
	if senders > 100 {
		return 20 * time.Millisecond
	}
	return 2 * time.Millisecond
}

// Child does the job that args[0] holds, until in ends, which the end of the parent brings about.
func Child(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("a job is missing: this command is for the benchmark itself")
	}
	var j job
	if err := json.Unmarshal([]byte(args[0]), &j); err != nil {
		return err
	}
	c := &child{job: j, in: bufio.NewScanner(in), out: json.NewEncoder(out)}
	switch j.Role {
	case receive:
		return c.receive()
	case broker:
		return c.broker()
	case herd:
		return c.herd()
	case topics:
		return c.topics()
	}
	return fmt.Errorf("drive: unknown role %q", j.Role)
}

type child struct {
	job job
	in  *bufio.Scanner

	mu  sync.Mutex // of out
	out *json.Encoder
}

// tell fails when the parent is gone; the child then ends with its input.
func (c *child) tell(n news) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.out.Encode(n)
}

// obey carries out the parent's commands until its end.
func (c *child) obey(commands map[string]func() (news, error)) error {
	for c.in.Scan() {
		do, ok := commands[c.in.Text()]
		if !ok {
			return fmt.Errorf("drive: unknown command %q", c.in.Text())
		}
		n, err := do()
		if err != nil {
			return err
		}
		c.tell(n)
	}
	return c.in.Err()
}

func memoryNews() (news, error) {
	m := measure.Measured()
	return news{Memory: &m}, nil
}

func (c *child) broker() error {
	address, stop, err := peers.StartNATS(c.job.Setup.Dir)
	if err != nil {
		return err
	}
	c.tell(news{Address: &address})
	return errors.Join(c.obey(nil), stop())
}

func (c *child) receive() (err error) {
	p, ok := peers.Find(c.job.Peer)
	if !ok {
		return fmt.Errorf("drive: no peer is called %q", c.job.Peer)
	}
	tally := measure.NewTally(c.job.Setup.Senders, c.job.Setup.Size)
	to, err := p.Receive(c.job.Setup, tally)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	address := to.Address()
	c.tell(news{Address: &address})
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { c.report(tally, quit) }) // ends with quit
	defer wg.Wait()
	defer close(quit)
	return c.obey(map[string]func() (news, error){
		askArrivals: func() (news, error) {
			a := tally.Arrivals()
			return news{Arrivals: &a}, nil
		},
		askMemory: memoryNews,
	})
}

func (c *child) report(tally *measure.Tally, quit <-chan struct{}) {
	ticker := time.NewTicker(reportEvery(c.job.Setup.Senders))
	defer ticker.Stop()
	began, last := time.Now(), uint64(0)
	for {
		select {
		case <-ticker.C:
		case <-quit:
			return
		}
		p := progress{Arrived: tally.Arrived(), Counted: tally.Counted(), At: time.Since(began)}
		if p.Counted != last {
			last, p.Allocations = p.Counted, allocations()
			c.tell(news{Progress: &p})
		}
	}
}
