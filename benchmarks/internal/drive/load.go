package drive

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// Load is what the sending end does.
type Load struct {
	Publishers int // goroutines; 0 means 1
	Batch      int // messages of one call; 0 means 1
	// Lanes are the senders that the goroutines go round, such as connections or topics; 0 means one for each
	// goroutine.
	Lanes int
	// Primed sends one message on every lane before anything is measured.
	Primed bool
	// Reuse sends the same buffers again and again, where the peer lets go of them: for payloads so large that making
	// them would be what is measured.
	Reuse bool
	// WarmUp is how many bytes of payload have to arrive before anything is measured: until the receiving end's heap
	// has all the memory that it goes on to use again. A page that is touched for the first time can cost more than a
	// message.
	WarmUp uint64
	// Patience is how long a turn waits while nothing arrives, before it counts what is missing; 0 means 10 s.
	Patience time.Duration
}

const defaultPatience = 10 * time.Second

func (l *Load) setDefaults() {
	l.Publishers, l.Batch = max(l.Publishers, 1), max(l.Batch, 1)
	l.Lanes = max(l.Lanes, l.Publishers)
	if l.Patience == 0 {
		l.Patience = defaultPatience
	}
}

// endpoints are what a turn works with.
type endpoints struct {
	sender peers.Sender
	tally  *measure.Tally // of the sending end
	count  counter
	window uint64
}

// counter tells what has arrived, and when that was known, on the clock of the receiving end.
type counter interface {
	progress() progress
	arrivals() (measure.Arrivals, error)
}

// progress is one look at the receiving end.
type progress struct {
	Arrived     uint64        `json:"arrived"` // with all before them
	Counted     uint64        `json:"counted"` // those that have overtaken others included
	At          time.Duration `json:"at"`
	Allocations uint64        `json:"allocations"` // of its process so far
}

// pressure is a load under way.
type pressure struct {
	stop   atomic.Bool
	wg     sync.WaitGroup
	failed chan error
}

// start lets the load's goroutines send until finish.
func (e endpoints) start(l Load) *pressure {
	p := &pressure{failed: make(chan error, l.Publishers)}
	for g := range l.Publishers {
		p.wg.Go(func() { // ends with stop, or an error
			if err := e.publish(l, g, &p.stop); err != nil {
				p.failed <- err
			}
		})
	}
	return p
}

// finish ends the load and returns its first error.
func (p *pressure) finish() error {
	p.stop.Store(true)
	p.wg.Wait()
	select {
	case err := <-p.failed:
		return err
	default:
		return nil
	}
}

// publish is one goroutine of the load.
func (e endpoints) publish(l Load, g int, stop *atomic.Bool) error {
	var lanes []int
	for lane := g; lane < l.Lanes; lane += l.Publishers {
		lanes = append(lanes, lane)
	}
	next := make([]uint64, len(lanes))
	for i := range next {
		next[i] = e.tally.SentBy(lanes[i]) // more than 0 where it is primed
	}
	payloads := e.payloads(l)
	unchecked := uint64(0)
	for turn := 0; !stop.Load(); turn = (turn + 1) % len(lanes) {
		if unchecked += uint64(l.Batch); e.window > 0 && unchecked >= 32 {
			unchecked = 0
			e.hold(stop)
		}
		lane := lanes[turn]
		batch := payloads()
		for i, payload := range batch {
			e.tally.Stamp(payload, lane, next[turn]+uint64(i))
		}
		next[turn] += uint64(len(batch))
		e.tally.Send(lane, next[turn])
		if err := e.sender.Send(lane, batch); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}

// prime sends a first message on every lane, several at a time.
func (e endpoints) prime(l Load) error {
	errs := make([]error, primers)
	var wg sync.WaitGroup
	for g := range errs {
		wg.Go(func() { // ends when its lanes are through
			for lane := g; lane < l.Lanes && errs[g] == nil; lane += primers {
				message := make([]byte, e.tally.Size())
				e.tally.Fill(message, lane, 0)
				e.tally.Send(lane, 1)
				errs[g] = e.sender.Send(lane, [][]byte{message})
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err // what went wrong goes wrong on many lanes
		}
	}
	return nil
}

// primers is how many lanes are primed at a time.
const primers = 64

// hold waits while more than the window is on its way.
func (e endpoints) hold(stop *atomic.Bool) {
	for e.tally.Sent() > e.count.progress().Arrived+e.window && !stop.Load() {
		time.Sleep(50 * time.Microsecond)
	}
}

// payloads makes batches that are filled but for their stamp: the same one again, or cut out of fresh slabs, as making
// each by itself would add to what every peer costs.
func (e endpoints) payloads(l Load) func() [][]byte {
	size := e.tally.Size()
	batch := make([][]byte, l.Batch)
	if l.Reuse {
		for i := range batch {
			batch[i] = make([]byte, size)
			e.tally.Fill(batch[i], 0, 0)
		}
		return func() [][]byte { return batch }
	}
	pattern := make([]byte, max(64<<10/size, 1)*size)
	for at := 0; at < len(pattern); at += size {
		e.tally.Fill(pattern[at:at+size], 0, 0)
	}
	var slab []byte
	return func() [][]byte {
		for i := range batch {
			if len(slab) == 0 {
				slab = append([]byte(nil), pattern...)[:len(pattern)]
			}
			batch[i], slab = slab[:size:size], slab[size:]
		}
		return batch
	}
}

// settle waits until all that was sent has arrived, or patience is over: the account then says what is missing.
func (e endpoints) settle(ctx context.Context, patience time.Duration) error {
	sent, last, moved := e.tally.Sent(), uint64(0), time.Now()
	for {
		arrived := e.count.progress().Arrived
		if arrived >= sent {
			return nil
		}
		if arrived != last {
			last, moved = arrived, time.Now()
		}
		if time.Since(moved) > patience || ctx.Err() != nil {
			return ctx.Err()
		}
		time.Sleep(200 * time.Microsecond)
	}
}
