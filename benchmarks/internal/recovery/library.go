package recovery

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// Away is what a publisher cost while its peer was away, and how soon its messages arrived after it crashed.
type Away struct {
	Marks            []Mark  `json:"marks"`
	FirstSeconds     float64 `json:"first_seconds"`        // from opening the outbox until the first message is at a subscriber
	ArrivedPerSecond float64 `json:"arrived_per_second"`   // for all, each acked
	HeapDelivered    int64   `json:"heap_added_bytes"`     // live, publisher and subscriber, once all arrived
	HeapPeak         int64   `json:"heap_peak_bytes"`      // added at most meanwhile, garbage included
	Delivered        int     `json:"delivered_messages"`   // each once and in order, or there is no result
	InFlight         int     `json:"subscriber_in_flight"` // SubscriberConfig.MaxInFlight
}

const inFlight = 256

// PeerAway lets a process publish messages, up to each of the counts, through an outbox in a new directory dir to a
// subscriber that is not there, kills it, and delivers them from another one, from the disk where the system allows.
func PeerAway(ctx context.Context, dir string, counts ...int) (Away, error) {
	// A socket file rather than a port: nobody else can take it while the subscriber is away.
	j := job{Dir: filepath.Join(dir, "outbox"), Topic: "unix://" + filepath.Join(dir, "peer.sock") + "#orders", Writers: 16, Batch: 25}
	for _, n := range counts {
		j.Marks = append(j.Marks, j.round(n))
	}
	marks, err := j.crash(ctx)
	if err != nil {
		return Away{}, err
	}
	j.Task = deliver
	var a Away
	err = j.delegate(ctx, &a)
	a.Marks = marks
	return a, err
}

func (j job) deliver(ctx context.Context) (a Away, err error) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{MaxInFlight: inFlight}, nil)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, sub.Close()) }()
	messages, err := sub.Subscribe(ctx, j.Topic)
	if err != nil {
		return a, err
	}
	before := measure.Heap()
	watch := measure.WatchHeap()
	defer func() { a.HeapPeak = watch.Peak() - before }()
	start := time.Now()
	o, err := outbox.Open(outbox.Config{Dir: j.Dir, QuotaBytes: 1 << 40})
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Outbox: o}, nil)
	if err != nil {
		return a, err
	}
	defer func() { err = errors.Join(err, pub.Close()) }()
	return j.count(ctx, start, before, messages, pub)
}

// count takes what arrives until the outbox is empty.
func (j job) count(ctx context.Context, start time.Time, heap int64, messages <-chan *message.Message, pub *buffstreams.Publisher) (Away, error) {
	ledger := j.filled()
	a := Away{Delivered: j.Marks[len(j.Marks)-1], InFlight: inFlight}
	ctx, cancel := context.WithCancel(ctx)
	drained := make(chan error, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { drained <- pub.Drain(ctx) }) // ends with cancel, or when the outbox is empty
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return a, errors.Join(errors.New("the subscription ended"), context.Cause(ctx))
			}
			if a.FirstSeconds == 0 {
				a.FirstSeconds = time.Since(start).Seconds()
			}
			ledger.Arrive(m.Payload)
			m.Ack()
		case err := <-drained:
			if err != nil {
				return a, err
			}
			a.ArrivedPerSecond = float64(a.Delivered) / time.Since(start).Seconds()
			a.HeapDelivered = measure.Heap() - heap
			return a, ledger.Account().Check()
		}
	}
}
