package drive

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/peers"
)

// BesideSlow measures the throughput of topic 0 while the handler of topic 1, on the same connection, is slow and its
// publisher keeps the window full. s.Topics is 2, and s.Slow says how long that handler takes; 0 leaves topic 1 alone,
// so that there is something to compare with. When the time is over the slow handler hurries up: its messages count
// too.
func BesideSlow(ctx context.Context, p peers.Peer, s peers.Setup, l Load, d time.Duration) (f Figures, err error) {
	s.Senders, s.Topics = 2, 2
	hurry := make(chan struct{})
	s.Hurry = hurry
	tally := measure.NewTally(2, s.Size)
	to, err := p.Receive(s, tally)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	sender, err := p.Dial(s, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, sender.Close()) }()
	e := endpoints{sender: sender, tally: tally, count: local{tally, time.Now()}}
	f, err = e.twoLanes(ctx, l, s.Slow > 0, d, sync.OnceFunc(func() { close(hurry) }))
	if err != nil {
		return nil, err
	}
	return f, tally.Arrivals().Check(tally.Sent(), true)
}

// twoLanes sends on lane 0, and on lane 1 where both is set.
func (e endpoints) twoLanes(ctx context.Context, l Load, both bool, d time.Duration, hurry func()) (Figures, error) {
	defer hurry()
	l.Lanes, l.Publishers = 1, 1
	l.setDefaults()
	var slow *pressure
	if both {
		beside := l
		beside.Publishers, beside.Lanes = 2, 2
		slow = &pressure{failed: make(chan error, 1)}
		slow.wg.Go(func() { // ends with stop, or an error
			if err := e.publish(beside, 1, &slow.stop); err != nil {
				slow.failed <- err
			}
		})
	}
	if both {
		e.awaitFull(ctx, 1)
	}
	fast := e.start(l)
	for e.tally.ArrivedOf(0) == 0 && len(fast.failed) == 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	pause(ctx, d/5)
	first, began := e.tally.ArrivedOf(0), time.Now()
	for pause(ctx, d); e.tally.ArrivedOf(0) == first && ctx.Err() == nil && time.Since(began) < l.Patience; {
		pause(ctx, d)
	}
	n, took := e.tally.ArrivedOf(0)-first, time.Since(began)
	err := fast.finish()
	hurry() // the publisher of the slow topic waits in Send
	if slow != nil {
		err = errors.Join(err, slow.finish())
	}
	if err := errors.Join(err, e.settle(ctx, l.Patience)); err != nil {
		return nil, err
	}
	return Figures{Rate: float64(n) / took.Seconds()}, nil
}

// awaitFull waits until the window of a lane is full: until its publisher has not come further for a while.
func (e endpoints) awaitFull(ctx context.Context, lane int) {
	const still = 20 * time.Millisecond
	for last, moved := uint64(0), time.Now(); time.Since(moved) < still && ctx.Err() == nil; {
		if sent := e.tally.SentBy(lane); sent != last {
			last, moved = sent, time.Now()
		}
		time.Sleep(time.Millisecond)
	}
}
