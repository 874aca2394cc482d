package bench

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/cmd/internal/pipe"
)

// closeAfter closes in order, and joins the errors behind the first.
func closeAfter(err error, closers ...io.Closer) error {
	for _, c := range closers {
		err = behind(err, c.Close())
	}
	return err
}

// behind joins what a Close says to an earlier error, unless it is what follows from that: messages are left.
func behind(err, closeErr error) error {
	if err != nil && errors.Is(closeErr, buffstreams.ErrUndelivered) {
		return err
	}
	return errors.Join(err, closeErr)
}

const (
	// hurry is how long a run that has failed waits for its end.
	hurry = time.Second
	// patience is how long a run that was interrupted waits for the calls that are under way.
	patience = 3 * time.Second
)

// hurried ends with its time, if the Close does not.
func hurried(closer func() error) error {
	closed := make(chan error, 1)
	go func() { closed <- closer() }() // ends with the Close, or with the process
	select {
	case err := <-closed:
		return err
	case <-time.After(hurry):
		return nil
	}
}

// Run measures, and returns what it has measured also when it is interrupted (pipe.ErrInterrupted) or fails.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Mode == Sub {
		return runSub(ctx, &o)
	}
	return runPub(ctx, &o)
}

func newSide(name string) *side {
	return &side{name: name, total: new(atomic.Int64), bytes: new(atomic.Int64)}
}

// runSub counts until Count messages have come, or Duration after the first.
func runSub(ctx context.Context, o *Options) (*Report, error) {
	s := newSide("receive")
	r, err := subscribe(o, time.Now(), s)
	if err != nil {
		return nil, err
	}
	o.Listening(o.Topic)
	watch := o.watch(s)
	interrupted := false
	select {
	case <-r.begun:
		watch.begin()
		var over <-chan time.Time
		if o.Count == 0 {
			over = time.After(o.Duration)
		}
		select {
		case <-r.enough:
		case <-over:
		case <-ctx.Done():
			interrupted = true
		}
	case <-ctx.Done():
		interrupted = true
	}
	seconds := watch.stop()
	err = r.close()
	report := o.report(interrupted)
	tallies, way := r.tallies()
	report.Receive = summarize(tallies, way, seconds)
	if interrupted && err == nil {
		err = pipe.ErrInterrupted
	}
	return report, err
}

// runPub sends, and with Both receives what it sends.
func runPub(ctx context.Context, o *Options) (*Report, error) {
	base := time.Now()
	var r *subscriptions
	var err error
	if o.Mode == Both {
		if r, err = subscribe(o, base, newSide("receive")); err != nil {
			return nil, err
		}
		o.Listening(o.Topic)
	}
	s := newSide("publish")
	clients, err := newPublishers(o, base)
	if err != nil {
		if r != nil {
			err = errors.Join(err, r.close())
		}
		return nil, err
	}
	seconds, err := interruptible(ctx, func() ([]float64, error) { return o.drive(ctx, clients, s) })
	if errors.Is(err, errStuck) {
		return nil, pipe.ErrInterrupted
	}
	report := o.report(ctx.Err() != nil)
	if err == nil && r != nil { // what is on its way belongs to the account of the other side
		err = clients.each(func(_ int, c *client) error { return c.settle(true) })
	}
	if o.Outbox != "" && err == nil {
		begin := time.Now()
		err = clients.each(func(_ int, c *client) error { return c.settle(true) })
		report.DrainSeconds = time.Since(begin).Seconds()
	}
	for _, c := range clients {
		report.WarmUpMessages += int64(c.sent) - c.measured.messages
	}
	tallies, calls := clients.tallies()
	report.Publish = summarize(tallies, calls, seconds)
	closing := clients.close
	if err != nil { // what is left will not arrive
		closing = func() error { return hurried(clients.close) }
	}
	err = behind(err, closing())
	if r != nil {
		err = behind(err, r.close())
		tallies, way := r.tallies()
		report.Receive = summarize(tallies, way, nil)
		if err == nil {
			err = report.compare()
		}
	}
	if err == nil && ctx.Err() != nil {
		err = pipe.ErrInterrupted
	}
	return report, err
}

// errStuck means that an interrupt does not end a run: its calls of Publish wait for the peer. They end with the
// process.
var errStuck = errors.New("calls do not return")

// interruptible returns what drive does, or errStuck when it has not ended soon after ctx.
func interruptible(ctx context.Context, drive func() ([]float64, error)) ([]float64, error) {
	type outcome struct {
		seconds []float64
		err     error
	}
	ended := make(chan outcome, 1)
	go func() { // ends with drive, or with the process
		seconds, err := drive()
		ended <- outcome{seconds, err}
	}()
	select {
	case o := <-ended:
		return o.seconds, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-ended:
		return o.seconds, o.err
	case <-time.After(patience):
		return nil, errStuck
	}
}

// drive warms the clients up and measures them. It returns the counts of the whole seconds.
func (o *Options) drive(ctx context.Context, clients publishers, s *side) ([]float64, error) {
	warmEnd := time.Now().Add(o.WarmUp)
	if err := clients.each(func(_ int, c *client) error { return c.warmUp(ctx, warmEnd) }); err != nil {
		return nil, err
	}
	counts := shares(o.Count, len(clients))
	watch := o.watch(s)
	watch.begin()
	end := time.Now().Add(o.Duration)
	err := clients.each(func(i int, c *client) error { return c.measure(ctx, counts[i], end, s) })
	return watch.stop(), err
}
