package recovery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// ChildArg is the first argument of a process that has a job to do, which is the second.
const ChildArg = "job"

// messageBytes is the size of every message.
const messageBytes = 110

// task is one of a job. Each has a process of its own, whose heap nothing else was in.
type task string

const (
	fill    task = "fill"
	open    task = "open"
	deliver task = "deliver"
)

// job is what a child has to do.
type job struct {
	Task    task
	Dir     string
	Topic   string // published to through the library; empty means that messages are appended to the outbox itself
	Writers int
	Batch   int   // messages of one call
	Marks   []int // after so many messages the child tells how it is; the last is how many there are
}

// round makes a count a multiple of what all writers do with one call each.
func (j job) round(count int) int { return max(count/(j.Writers*j.Batch), 1) * j.Writers * j.Batch }

// Mark is how a child is once so many messages wait.
type Mark struct {
	Pending int   `json:"pending"`
	Heap    int64 `json:"heap_bytes"`      // live objects, after a collection
	Peak    int64 `json:"heap_peak_bytes"` // since the mark before, garbage included
}

// Child does a job of its parent, writes the results to out, and waits to be killed, or for the end of in, which the
// end of its parent brings about.
func Child(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("a job is missing: this command is for the benchmark itself")
	}
	var j job
	if err := json.Unmarshal([]byte(args[0]), &j); err != nil {
		return err
	}
	if err := j.do(context.Background(), json.NewEncoder(out)); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, in)
	return err
}

// do writes a result only of what went well: its parent waits for no more.
func (j job) do(ctx context.Context, out *json.Encoder) error {
	switch j.Task {
	case open:
		r, err := j.open(ctx)
		if err != nil {
			return err
		}
		return out.Encode(r)
	case deliver:
		a, err := j.deliver(ctx)
		if err != nil {
			return err
		}
		return out.Encode(a)
	default:
		return j.fill(out)
	}
}

// fill makes an outbox and writes messages into it, or publishes them through it. It leaves the outbox open.
func (j job) fill(marks *json.Encoder) error {
	o, err := outbox.Open(outbox.Config{Dir: j.Dir, QuotaBytes: 1 << 40})
	if err != nil {
		return err
	}
	write := appendTo(o)
	if j.Topic != "" {
		pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Outbox: o}, nil)
		if err != nil {
			return err
		}
		write = publishTo(pub, j.Topic)
	}
	return j.fillUpTo(write, marks)
}

// fillUpTo writes up to each mark.
func (j job) fillUpTo(write func(writer int, batch [][]byte) error, marks *json.Encoder) error {
	ledger := measure.NewLedger(j.Writers, messageBytes)
	if err := marks.Encode(Mark{Heap: measure.Heap()}); err != nil {
		return err
	}
	for i, pending := 0, 0; i < len(j.Marks); i++ {
		watch := measure.WatchHeap()
		err := j.fillBy(ledger, (j.Marks[i]-pending)/j.Writers, write)
		peak := watch.Peak()
		if err != nil {
			return err
		}
		pending = j.Marks[i]
		if err := marks.Encode(Mark{Pending: pending, Heap: measure.Heap(), Peak: peak}); err != nil {
			return err
		}
	}
	return nil
}

// fillBy lets each writer write so many messages.
func (j job) fillBy(ledger *measure.Ledger, each int, write func(int, [][]byte) error) error {
	errs := make([]error, j.Writers)
	var wg sync.WaitGroup
	for w := range j.Writers {
		wg.Go(func() { // ends when it wrote all
			batch := make([][]byte, j.Batch)
			for n := 0; n < each && errs[w] == nil; n += j.Batch {
				for i := range batch {
					batch[i] = ledger.Message(batch[i][:0], w)
					ledger.Confirm(w, 1)
				}
				errs[w] = write(w, batch)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// appendTo spreads the writers over ten streams.
func appendTo(o *outbox.Outbox) func(int, [][]byte) error {
	return func(writer int, batch [][]byte) error {
		k := store.Key{Destination: fmt.Sprintf("10.0.0.%d:5031", writer%10), Topic: "orders"}
		_, err := o.Append(context.Background(), k, batch...)
		return err
	}
}

func publishTo(pub message.Publisher, topic string) func(int, [][]byte) error {
	return func(_ int, batch [][]byte) error {
		messages := make([]*message.Message, len(batch))
		for i, payload := range batch {
			messages[i] = message.NewMessage(watermill.NewUUID(), payload)
		}
		return pub.Publish(topic, messages...)
	}
}

// filled is the account of a job that was done.
func (j job) filled() *measure.Ledger {
	ledger := measure.NewLedger(j.Writers, messageBytes)
	for w := range j.Writers {
		ledger.Confirm(w, uint64(j.Marks[len(j.Marks)-1]/j.Writers))
	}
	return ledger
}

// crash lets a child fill the outbox and kills it, and makes the system read it from the disk.
func (j job) crash(ctx context.Context) ([]Mark, error) {
	j.Task = fill                         //nolint:revive // of the copy
	marks := make([]Mark, len(j.Marks)+1) // one before anything is written
	var results []any
	for i := range marks {
		results = append(results, &marks[i])
	}
	if err := j.delegate(ctx, results...); err != nil {
		return nil, err
	}
	return marks, forget(j.Dir)
}
