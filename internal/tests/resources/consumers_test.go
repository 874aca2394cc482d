//go:build linux

package resources

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// TestMemory_SlowConsumersTakeNone: consumers that are slow, or never ack, beside fast ones. The process stays within
// what was configured, and fast ones stay fast, also where the windows of the others do not fit into the memory limit
// together.
func TestMemory_SlowConsumersTakeNone(t *testing.T) {
	if testkit.RaceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	for name, windowBytes := range map[string]string{
		"their windows fit":           "4194304",
		"their windows take it whole": "8388608",
	} {
		t.Run(name, func(t *testing.T) { run(t, child(t, "consumers", windowBytes)) })
	}
}

const (
	memoryLimit  = 32 << 20 // for all that is received and not handled, and once more for what is sent and not handled
	payloadBytes = 16 << 10
	allowance    = 64 << 20 // over what is configured
	loadTime     = 3 * time.Second
)

// load is a topic, its publisher and its consumer.
type load struct {
	name    string
	pause   time.Duration   // of the handler; negative: it does not ack
	relent  <-chan struct{} // closed when all handlers become fast
	handled atomic.Int64
}

func withSlowConsumers(window string) error {
	windowBytes, err := strconv.Atoi(window)
	if err != nil {
		return err
	}
	// Without a limit Go's collector lets the heap grow to twice what lives before it begins: with one, what is resident
	// shows what lives.
	debug.SetMemoryLimit(2*memoryLimit + allowance*3/4)
	before, err := status("self", "VmRSS")
	if err != nil {
		return err
	}
	acked := quick()
	acked.MemoryLimit, acked.WindowBytes = memoryLimit, windowBytes
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: acked})
	if err != nil {
		return err
	}
	loads := []*load{ // the fast ones come when the others have taken what they can
		{name: "slow-1", pause: 20 * time.Millisecond}, {name: "slow-2", pause: 20 * time.Millisecond},
		{name: "never-1", pause: -1}, {name: "never-2", pause: -1}, {name: "never-3", pause: -1}, {name: "never-4", pause: -1},
		{name: "fast-1"}, {name: "fast-2"},
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var all sync.WaitGroup
	failed := make(chan error, 2*len(loads))
	relent := make(chan struct{})
	for _, l := range loads {
		if l.name == "fast-1" {
			<-time.After(loadTime / 4)
		}
		l.relent = relent
		if err := l.start(ctx, m, &all, failed); err != nil {
			return err
		}
	}
	half := make([]int64, len(loads))
	<-time.After(loadTime / 2)
	for i, l := range loads {
		half[i] = l.handled.Load()
	}
	<-time.After(loadTime / 2)
	peak, err := status("self", "VmHWM")
	if err != nil {
		return err
	}
	for i, l := range loads {
		tell("%s: %d handled, %d of them in the second half", l.name, l.handled.Load(), l.handled.Load()-half[i])
		if l.pause == 0 && l.handled.Load()-half[i] < 300 {
			return fmt.Errorf("%s is held up by others", l.name)
		}
	}
	tell("memory: %d MiB at first, %d MiB at most; %d MiB are configured", before>>10, peak>>10, 2*memoryLimit>>20)
	if grown := (peak - before) << 10; grown > 2*memoryLimit+allowance {
		return fmt.Errorf("%d MiB more than at first, %d MiB are configured and %d MiB allowed besides", grown>>20, 2*memoryLimit>>20, allowance>>20)
	}
	close(relent)
	for began := time.Now(); slices.ContainsFunc(loads, func(l *load) bool { return l.handled.Load() < 1000 }); {
		if time.Since(began) > patience {
			return errors.New("not everybody goes on when room is made")
		}
		<-time.After(10 * time.Millisecond)
	}
	stop()
	if err = m.Close(); errors.Is(err, buffstreams.ErrUndelivered) { // what was published last
		err = nil
	}
	all.Wait()
	close(failed)
	return errors.Join(err, <-failed)
}

// start publishes and consumes until ctx ends.
func (l *load) start(ctx context.Context, m *buffstreams.Manager, all *sync.WaitGroup, failed chan<- error) error {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: m, ConsumerGroup: "group", CloseTimeout: time.Second}, nil)
	if err != nil {
		return err
	}
	messages, err := sub.Subscribe(ctx, "127.0.0.1:0/"+l.name)
	if err != nil {
		return err
	}
	address, err := sub.Addr("127.0.0.1:0/" + l.name)
	if err != nil {
		return err
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: m, Confirm: buffstreams.ConfirmEnqueued, PublishTimeout: -1, CloseTimeout: time.Millisecond,
	}, nil)
	if err != nil {
		return err
	}
	all.Go(func() { // ends with ctx, which closes the channel
		for msg := range messages {
			l.consume(ctx, msg)
		}
	})
	context.AfterFunc(ctx, func() { _ = pub.Close() }) // much is undelivered
	all.Go(func() {                                    // ends when the publisher is closed
		payload := make([]byte, payloadBytes)
		for ctx.Err() == nil {
			err := pub.Publish(fmt.Sprintf("%v/%s", address, l.name), message.NewMessage("", payload))
			if err != nil && ctx.Err() == nil {
				failed <- err
				return
			}
		}
	})
	return nil
}

func (l *load) consume(ctx context.Context, msg *message.Message) {
	var paused <-chan time.Time
	if l.pause >= 0 {
		paused = time.After(l.pause)
	}
	select {
	case <-paused:
	case <-l.relent:
	case <-ctx.Done():
	}
	msg.Ack()
	l.handled.Add(1)
}
