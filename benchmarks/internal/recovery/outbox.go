package recovery

import (
	"context"
	"path/filepath"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/durable"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// Opened is what it took to open an outbox after a crash. Heaps are what was added to that of before.
type Opened struct {
	Pending       int     `json:"pending"`
	Batch         int     `json:"batch"`             // messages of the calls that stored them
	FirstSeconds  float64 `json:"first_seconds"`     // from Open until the first message is read
	ReadPerSecond float64 `json:"read_per_second"`   // for all of them
	HeapOpened    int64   `json:"heap_opened_bytes"` // live once the first was read
	HeapRead      int64   `json:"heap_read_bytes"`   // live once all were read
	HeapPeak      int64   `json:"heap_peak_bytes"`   // garbage included, meanwhile
}

// Open fills an outbox in a new directory dir with about count messages in ten streams, batch to a call, kills the
// process that did, and opens in another one what it left, from the disk rather than from the page cache where the
// system allows.
func Open(ctx context.Context, dir string, count, batch int) (Opened, error) {
	j := job{Dir: filepath.Join(dir, "outbox"), Writers: 10, Batch: batch}
	if batch < 10 { // or it would take minutes
		j.Writers = 100
	}
	j.Marks = []int{j.round(count)}
	if _, err := j.crash(ctx); err != nil {
		return Opened{}, err
	}
	j.Task = open
	var r Opened
	err := j.delegate(ctx, &r)
	return r, err
}

func (j job) open(ctx context.Context) (r Opened, err error) {
	ledger := j.filled()
	r.Pending, r.Batch = j.Marks[0], j.Batch
	before := measure.Heap()
	watch := measure.WatchHeap()
	defer func() { r.HeapPeak = watch.Peak() - before }()
	start := time.Now()
	o, err := outbox.Open(outbox.Config{Dir: j.Dir})
	if err != nil {
		return r, err
	}
	defer func() { _ = o.Close() }() // it was only read
	streams := o.Streams()
	if _, err := o.Read(streams[len(streams)-1].Key, 1, 64<<10); err != nil {
		return r, err
	}
	r.FirstSeconds = time.Since(start).Seconds()
	r.HeapOpened = measure.Heap() - before

	start = time.Now()
	for _, s := range streams {
		if err := durable.ReadAll(ctx, o, s.Key, ledger.Arrive); err != nil {
			return r, err
		}
	}
	r.ReadPerSecond = float64(r.Pending) / time.Since(start).Seconds()
	r.HeapRead = measure.Heap() - before
	return r, ledger.Account().Check()
}
