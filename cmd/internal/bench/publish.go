package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// stampSize is what the time of sending takes at the start of a payload, where the payload has the room.
const stampSize = 8

// side is one end of a run: its clients, and the messages that they have counted together.
type side struct {
	name  string // as reports have it
	total *atomic.Int64
	bytes *atomic.Int64
}

// client is one publisher.
type client struct {
	o         *Options
	base      time.Time // of the stamps
	manager   *buffstreams.Manager
	publisher *buffstreams.Publisher
	box       *outbox.Outbox // nil without --outbox
	prefix    string         // of UUIDs
	sent      int            // with the warm-up
	batch     []*message.Message

	measured tally
	calls    *hdrhistogram.Histogram
	failures atomic.Int64 // messages that the peer refused
}

// tally is what one client counted while it was measured.
type tally struct {
	messages, bytes int64
	first, last     time.Time
}

func (t tally) seconds() float64 { return t.last.Sub(t.first).Seconds() }

func newClient(o *Options, number int, base time.Time) (c *client, err error) {
	c = &client{o: o, base: base, prefix: watermill.NewUUID()[:24], calls: newHistogram()}
	if c.manager, err = o.manager(); err != nil {
		return nil, err
	}
	cfg := buffstreams.PublisherConfig{
		Manager: c.manager, Confirm: o.Confirm, PublishTimeout: o.Timeout, CloseTimeout: o.Timeout,
		OnFailure: func(string, []byte, error) { c.failures.Add(1) },
	}
	if o.Outbox != "" {
		dir := filepath.Join(o.Outbox, "client-"+strconv.Itoa(number))
		if c.box, err = outbox.Open(outbox.Config{Dir: dir}); err != nil {
			return nil, errors.Join(err, c.manager.Close())
		}
		cfg.Outbox = c.box
	}
	if c.publisher, err = buffstreams.NewPublisher(cfg, o.Logger); err != nil {
		return nil, errors.Join(err, c.close())
	}
	for range o.Batch {
		c.batch = append(c.batch, message.NewMessage("", make([]byte, o.Size)))
	}
	return c, nil
}

// publish sends n messages with one call. A message that is sent again is a new one: it has another UUID.
func (c *client) publish(n int, warmUp bool) error {
	now := time.Since(c.base)
	for _, m := range c.batch[:n] {
		c.sent++
		m.UUID = c.prefix + fmt.Sprintf("%012d", c.sent)
		if len(m.Payload) >= stampSize {
			binary.BigEndian.PutUint64(m.Payload, uint64(now))
		}
		if warmUp {
			m.Metadata.Set(WarmUpKey, "1")
		} else {
			delete(m.Metadata, WarmUpKey)
		}
	}
	return pipe.Explain(c.publisher.Publish(c.o.Topic, c.batch[:n]...))
}

// warmUp sends until end, and at least once, for the connection, and then waits until its messages are where the others
// will not wait for them.
func (c *client) warmUp(ctx context.Context, end time.Time) error {
	for first := c.o.WarmUp > 0; ctx.Err() == nil && (first || time.Now().Before(end)); first = false {
		if err := c.publish(len(c.batch), true); err != nil {
			return err
		}
	}
	return c.settle(c.o.Mode == Both || c.box != nil)
}

// settle waits until what was published is received, or handled.
func (c *client) settle(handled bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.o.Timeout)
	defer cancel()
	wait := c.publisher.Flush
	if handled {
		wait = c.publisher.Drain
	}
	err := wait(ctx)
	if err == nil || ctx.Err() == nil {
		return err
	}
	addresses := c.manager.Stats().Addresses
	for i := range addresses {
		if a := &addresses[i]; a.LastError != "" {
			return fmt.Errorf("not everything was delivered within %v: %s is %s: %s", c.o.Timeout, a.Address, a.State, a.LastError)
		}
	}
	return fmt.Errorf("not everything was delivered within %v: %w", c.o.Timeout, err)
}

// measure sends count messages, or, with no count, until end. What is confirmed only later counts as sent when it is.
func (c *client) measure(ctx context.Context, count int, end time.Time, s *side) (err error) {
	c.measured.first = time.Now()
	for before := c.measured.first; ctx.Err() == nil; {
		n := c.o.Batch
		if c.o.Count > 0 {
			n = min(n, count-int(c.measured.messages))
		} else if !before.Before(end) {
			n = 0
		}
		if n == 0 {
			break
		}
		if err = c.publish(n, false); err != nil {
			break
		}
		now := time.Now()
		record(c.calls, now.Sub(before))
		before = now
		c.measured.messages += int64(n)
		c.measured.bytes += int64(n * c.o.Size)
		s.total.Add(int64(n))
		s.bytes.Add(int64(n * c.o.Size))
	}
	if c.o.Confirm == buffstreams.ConfirmEnqueued && c.box == nil {
		err = errors.Join(err, c.settle(false))
	}
	c.measured.last = time.Now()
	return err
}

func (c *client) close() error {
	var err error
	if c.publisher != nil {
		err = c.publisher.Close()
	}
	err = behind(err, c.manager.Close())
	if c.box != nil {
		err = errors.Join(err, c.box.Close())
	}
	if n := c.failures.Load(); n > 0 {
		err = errors.Join(fmt.Errorf("%d messages were refused", n), err)
	}
	return err
}

// publishers are the clients that publish.
type publishers []*client

func newPublishers(o *Options, base time.Time) (p publishers, err error) {
	for i := range o.Clients {
		c, err := newClient(o, i, base)
		if err != nil {
			return nil, errors.Join(err, p.close())
		}
		p = append(p, c)
	}
	return p, nil
}

// each runs f for all clients side by side, and waits for all of them.
func (p publishers) each(f func(i int, c *client) error) error {
	errs := make([]error, len(p))
	var wg sync.WaitGroup
	for i, c := range p {
		wg.Go(func() { errs[i] = f(i, c) })
	}
	wg.Wait()
	return firstOf(errs)
}

// firstOf is one error for many clients, which mostly fail for the same reason.
func firstOf(errs []error) error {
	var first error
	failed := 0
	for _, err := range errs {
		if err != nil {
			if failed++; first == nil {
				first = err
			}
		}
	}
	if failed > 1 {
		return fmt.Errorf("%d of %d clients failed, the first: %w", failed, len(errs), first)
	}
	return first
}

func (p publishers) close() error {
	return p.each(func(_ int, c *client) error { return c.close() })
}

// shares deals count out.
func shares(count, clients int) []int {
	s := make([]int, clients)
	for i := range s {
		s[i] = count / clients
		if i < count%clients {
			s[i]++
		}
	}
	return s
}

// tallies are what the clients measured, and one histogram of all calls.
func (p publishers) tallies() (t []tally, calls *hdrhistogram.Histogram) {
	calls = newHistogram()
	for _, c := range p {
		t = append(t, c.measured)
		calls.Merge(c.calls)
	}
	return t, calls
}
