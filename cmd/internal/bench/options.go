// Package bench measures the transport: throughput (bench) and latency at a set rate (latency).
package bench

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/access"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

// Mode is which ends of a topic a run has.
type Mode string

// The modes.
const (
	Pub  Mode = "pub"
	Sub  Mode = "sub"
	Both Mode = "both" // in one process, over a socket
)

// Options say what to measure.
type Options struct {
	Mode  Mode
	Topic string
	// Clients is the number of publishers, each with a connection of its own, or of the subscriptions that share a
	// group; with Both of either.
	Clients int
	// Size is that of a payload in bytes, Batch the number of messages of a Publish call.
	Size, Batch int
	// Count is how many messages all clients together send or receive; 0 means that Duration says when it ends.
	Count    int
	Duration time.Duration
	// WarmUp is how long messages are sent before the measuring begins. They are marked: the subscribers here do not
	// count them.
	WarmUp  time.Duration
	Confirm buffstreams.Confirm
	// ConfirmName is what reports call Confirm.
	ConfirmName string
	// Outbox is a directory in which each publisher gets an outbox; empty means none.
	Outbox string
	// Group is the consumer group of the subscriptions, InFlight how many messages each of them may have unacked.
	Group    string
	InFlight int
	// Timeout bounds one Publish call and the wait at the end.
	Timeout time.Duration
	Access  access.Access
	Logger  watermill.LoggerAdapter
	// Bar, if not nil, gets a progress bar.
	Bar io.Writer
	// Listening is told the address once messages are taken.
	Listening func(address string)
}

func (o *Options) check() error {
	switch {
	case o.Clients < 1 || o.Clients > 10_000:
		return fmt.Errorf("--clients %d is not between 1 and 10000", o.Clients)
	case o.Size < 0 || o.Size > 1<<28:
		return fmt.Errorf("--size %d is not between 0 and %d", o.Size, 1<<28)
	case o.Batch < 1 || o.Batch > 10_000:
		return fmt.Errorf("--batch %d is not between 1 and 10000", o.Batch)
	case o.Count < 0:
		return fmt.Errorf("--count %d is negative", o.Count)
	case o.Count == 0 && o.Duration <= 0:
		return errors.New("one of --count and --duration must be positive")
	case o.WarmUp < 0:
		return fmt.Errorf("--warmup %v is negative", o.WarmUp)
	case o.Timeout <= 0:
		return fmt.Errorf("--timeout %v is not positive", o.Timeout)
	case o.InFlight < 1:
		return fmt.Errorf("--in-flight %d is not positive", o.InFlight)
	}
	_, err := pipe.ParseTopic(o.Topic)
	return err
}

// WarmUpKey is the metadata key that marks messages of the warm-up.
const WarmUpKey = "buffstreams_bench_warmup"

// manager makes the Manager of one publisher or of the subscriptions.
func (o *Options) manager() (*buffstreams.Manager, error) {
	acked := pipe.AckedConfig(max(o.Size, 1<<20))
	if err := errors.Join(o.Access.Client(&acked), o.Access.Server(&acked)); err != nil {
		return nil, err
	}
	return buffstreams.NewManager(buffstreams.ManagerConfig{Logger: o.Logger, Acked: acked, CloseTimeout: o.Timeout})
}
