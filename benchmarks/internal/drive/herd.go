package drive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// Idle is a figure: what one more connection costs the listening process while nothing is sent, in bytes of live
// objects and stacks. IdleResident is the same as the system sees it.
const (
	Idle         = "idle_bytes"
	IdleResident = "idle_resident_bytes"
)

// idleFor is how long a herd is silent before its memory counts.
const idleFor = 1500 * time.Millisecond

// Connections measures the throughput of n connections, each of a publisher of its own, and the memory of the
// listening process while they are idle. Listener and publishers are two processes apart from this one.
func Connections(ctx context.Context, p peers.Peer, s peers.Setup, n int, l Load, d time.Duration) (f Figures, err error) {
	l.Lanes = n
	l.setDefaults()
	s.Senders = l.Lanes
	to, err := spawn(job{Role: receive, Peer: p.Name, Setup: s})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	before, err := to.memory()
	if err != nil {
		return nil, err
	}
	from, err := spawn(job{Role: herd, Peer: p.Name, Setup: s, Address: to.Address(), Connections: n, Load: l})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	pause(ctx, idleFor)
	idle, err := to.memory()
	if err != nil {
		return nil, err
	}
	if f, err = stampede(ctx, to, from, d); err != nil {
		return nil, err
	}
	per := func(bytes int64) float64 { return float64(bytes) / float64(n) }
	f[Idle] = per(idle.Heap + idle.Stacks - before.Heap - before.Stacks)
	f[IdleResident] = per(idle.Resident - before.Resident)
	return f, nil
}

// stampede lets the herd run, and checks that all of it arrived.
func stampede(ctx context.Context, to, from *process, d time.Duration) (Figures, error) {
	if _, err := from.ask(askGo); err != nil {
		return nil, err
	}
	pause(ctx, d/5)
	first := to.progress()
	last := first
	for began := time.Now(); last.Arrived == first.Arrived && ctx.Err() == nil && time.Since(began) < defaultPatience; {
		pause(ctx, d)
		last = to.progress()
	}
	n, err := from.ask(askHalt)
	if err != nil || n.Sent == nil {
		return nil, orElse(err, "drive: a herd did not tell what it has sent")
	}
	for began := time.Now(); to.progress().Arrived < *n.Sent && time.Since(began) < defaultPatience; {
		time.Sleep(time.Millisecond)
	}
	arrivals, err := to.arrivals()
	if err != nil {
		return nil, err
	}
	return between(first, last, 0, 0), arrivals.Check(*n.Sent, true)
}

// herd opens the connections, which have each carried a message when it reports that it is ready.
func (c *child) herd() error {
	p, ok := peers.Find(c.job.Peer)
	if !ok {
		return fmt.Errorf("drive: no peer is called %q", c.job.Peer)
	}
	l := c.job.Load
	l.setDefaults()
	members, err := gather(p, c.job.Setup, peers.Remote(c.job.Address), c.job.Connections)
	if err != nil {
		return err
	}
	e := endpoints{sender: members, tally: measure.NewTally(l.Lanes, c.job.Setup.Size)}
	if err := e.prime(l); err != nil {
		return err
	}
	c.tell(news{Address: &c.job.Address})
	var running *pressure
	err = c.obey(map[string]func() (news, error){
		askGo: func() (news, error) {
			running = e.start(l)
			return news{Done: true}, nil
		},
		askHalt: func() (news, error) {
			err := running.finish()
			sent := e.tally.Sent()
			return news{Sent: &sent}, err
		},
	})
	return errors.Join(err, members.Close())
}

// flock is a sender of many, which the lanes are dealt out to.
type flock []peers.Sender

func gather(p peers.Peer, s peers.Setup, to peers.Receiver, n int) (flock, error) {
	s.Senders = (s.Senders + n - 1) / n
	members := make(flock, n)
	for i := range members {
		m, err := p.Dial(s, to)
		if err != nil {
			return nil, err
		}
		members[i] = m
	}
	return members, nil
}

func (f flock) Send(lane int, batch [][]byte) error { return f[lane%len(f)].Send(lane/len(f), batch) }

func (f flock) Flush() error { return f.each(peers.Sender.Flush) }

func (f flock) Close() error { return f.each(peers.Sender.Close) }

func (f flock) each(do func(peers.Sender) error) error {
	errs := make([]error, len(f))
	var wg sync.WaitGroup
	for i, m := range f {
		wg.Go(func() { errs[i] = do(m) }) // ends with do
	}
	wg.Wait()
	return errors.Join(errs...)
}

// IdleTopics measures what a topic costs the listening process that nobody has sent to or subscribed to yet.
func IdleTopics(n int) (f Figures, err error) {
	p, err := spawn(job{Role: topics, Setup: peers.Setup{Name: "idle", Topics: n}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	before, err := p.memory()
	if err != nil {
		return nil, err
	}
	if _, err := p.ask(askMore); err != nil {
		return nil, err
	}
	after, err := p.memory()
	if err != nil {
		return nil, err
	}
	return Figures{
		Idle:         float64(after.Heap+after.Stacks-before.Heap-before.Stacks) / float64(n),
		IdleResident: float64(after.Resident-before.Resident) / float64(n),
	}, nil
}

func (c *child) topics() error {
	declare, stop, err := c.job.Setup.Declarer()
	if err != nil {
		return err
	}
	none := ""
	c.tell(news{Address: &none})
	err = c.obey(map[string]func() (news, error){
		askMemory: memoryNews,
		askMore:   func() (news, error) { return news{Done: true}, declare() },
	})
	return errors.Join(err, stop())
}
