package batch

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Run hands the messages of a subscription to handle, batch after batch, on the calling goroutine. It returns nil when
// messages is closed: end the context of Subscribe, or close the subscriber, for what was taken to be handled first,
// within the time that the subscriber gives. It returns ctx's error when ctx is done, which ends the context of the
// handler that runs, waits for it, and nacks what is not handled. An error of Validate comes at once.
func Run(ctx context.Context, messages <-chan *message.Message, handle Handler, config Config) error {
	if handle == nil {
		return errors.New("batch: there is no Handler")
	}
	if err := config.Validate(); err != nil {
		return err
	}
	config.setDefaults()
	r := &runner{Config: config, handle: handle, messages: messages, limit: config.Size}
	defer r.giveBack()
	for {
		if !r.gather(ctx) {
			return ctx.Err()
		}
		r.call(ctx)
	}
}

// pending is a message that was taken and not settled.
type pending struct {
	msg      *message.Message
	attempts int  // that failed by itself
	done     bool // it is settled, for sweep to drop it
}

type runner struct {
	Config
	handle   Handler
	messages <-chan *message.Message // nil once it was closed

	pending  []pending // in order; no more than Size
	batch    []*message.Message
	limit    int // of the next batch: it begins with 1 after a failure
	failures int // calls that failed since the last success
}

// gather takes messages until there is a batch to hand over. It returns false when there will be none: ctx is done, or
// the messages have ended and all are settled.
func (r *runner) gather(ctx context.Context) bool {
	r.sweep()
	if r.failures > 0 && !r.sleep(ctx) {
		return false
	}
	for {
		if !r.fill(ctx) {
			return false
		}
		if r.sweep(); len(r.pending) > 0 {
			return true
		}
		if r.messages == nil {
			return false
		}
	}
}

// fill takes messages until a batch is full, Wait is over, or they have ended. It returns false when ctx is done.
func (r *runner) fill(ctx context.Context) bool {
	var over <-chan time.Time // nil while there is nothing that waits
	for {
		r.takeReady()
		waiting := len(r.pending) > 0
		switch {
		case ctx.Err() != nil:
			return false
		case r.messages == nil, len(r.pending) >= r.limit, waiting && r.Wait == NoWait:
			return true
		case waiting && over == nil:
			timer := time.NewTimer(r.Wait)
			defer timer.Stop() //nolint:gocritic // once: over is set from then on
			over = timer.C
		}
		select {
		case m, ok := <-r.messages:
			r.take(m, ok)
		case <-over:
			return true
		case <-ctx.Done():
		}
	}
}

// takeReady takes what is there, without waiting.
func (r *runner) takeReady() {
	for len(r.pending) < r.limit && r.messages != nil {
		select {
		case m, ok := <-r.messages:
			r.take(m, ok)
		default:
			return
		}
	}
}

func (r *runner) take(m *message.Message, ok bool) {
	if !ok {
		r.messages = nil
		return
	}
	r.pending = append(r.pending, pending{msg: m})
}

// sleep waits before what failed is handed again. It returns false if ctx ends, and true early if the first message's
// does.
func (r *runner) sleep(ctx context.Context) bool {
	if len(r.pending) == 0 {
		return true
	}
	d := r.Sleep
	for i := 1; i < r.failures && d < r.SleepCap; i++ {
		d *= 2
	}
	timer := time.NewTimer(min(d, r.SleepCap))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.pending[0].msg.Context().Done():
		return true
	case <-ctx.Done():
		return false
	}
}

// sweep drops what is settled, and what the subscriber has given up: it comes again from there.
func (r *runner) sweep() {
	r.pending = slices.DeleteFunc(r.pending, func(p pending) bool {
		if p.done || settled(p.msg) {
			return true
		}
		if p.msg.Context().Err() == nil {
			return false
		}
		p.msg.Nack()
		return true
	})
}

// settled tells whether a handler acked or nacked a message itself.
func settled(m *message.Message) bool {
	select {
	case <-m.Acked():
		return true
	case <-m.Nacked():
		return true
	default:
		return false
	}
}

// call hands the first messages over, and settles what was decided.
func (r *runner) call(ctx context.Context) {
	n := min(len(r.pending), r.limit)
	r.batch = r.batch[:0]
	for _, p := range r.pending[:n] {
		r.batch = append(r.batch, p.msg)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &watch{messages: r.pending[:n], cancel: cancel}
	w.from(0)
	err := guard(func() error { return r.handle(ctx, slices.Clip(r.batch)) })
	w.stop()
	failed, left := r.decide(ctx, r.pending[:n], err)
	if left == 0 {
		r.failures = 0
	} else {
		r.failures++
	}
	if failed == 0 {
		r.limit = min(2*r.limit, r.Size)
		return
	}
	r.limit = 1
	r.Logger.Error("Handler of a batch failed", err, watermill.LogFields{
		"messages": n, "failed": failed, "handed_again": left, "first_message_uuid": r.pending[0].msg.UUID, "failures": r.failures,
	})
}

// decide settles the messages of a batch by its result. It returns how many failed, and how many of them are to be
// handed again.
func (r *runner) decide(ctx context.Context, batch []pending, result error) (failed, left int) {
	for i := range batch {
		p := &batch[i]
		err, own := outcome(result, i, len(batch))
		switch {
		case settled(p.msg):
			p.done = true
		case err == nil:
			p.msg.Ack()
			p.done = true
		default:
			failed++
			if own && p.msg.Context().Err() == nil && ctx.Err() == nil {
				r.count(ctx, p, err)
			}
			if !p.done {
				left++
			}
		}
	}
	return failed, left
}

// outcome reads the result of a batch for one of its messages: its error, and whether that is about this message alone.
// What is joined with other errors says nothing of each: a commit that failed too, for example.
func outcome(result error, i, n int) (err error, own bool) {
	for e := result; e != nil; e = errors.Unwrap(e) {
		switch e := e.(type) { //nolint:errorlint // errors.As would look into joined errors
		case Errors:
			if len(e) == n {
				return e[i], true
			}
			return result, n == 1
		case *FromError:
			switch {
			case e == nil || e.Index < 0 || e.Index >= n:
				return result, n == 1
			case i < e.Index:
				return nil, false
			}
			return result, i == e.Index
		}
	}
	return result, result != nil && n == 1
}

// count counts an attempt of a message that failed, and ends it if it was the last.
func (r *runner) count(ctx context.Context, p *pending, reason error) {
	p.attempts++
	switch {
	case r.MaxAttempts == 0 || p.attempts < r.MaxAttempts:
	case r.Failed == nil:
		p.done = true
		p.msg.Nack()
	default:
		if err := guard(func() error { return r.Failed(ctx, p.msg, reason) }); err != nil {
			r.Logger.Error("Failed returned an error: the message is handed again", err, watermill.LogFields{"message_uuid": p.msg.UUID})
			return
		}
		p.done = true
		p.msg.Ack()
	}
}

// giveBack nacks what is not handled.
func (r *runner) giveBack() {
	for _, p := range r.pending {
		if !p.done {
			p.msg.Nack()
		}
	}
}

// guard calls the user's code. A panic is a *PanicError.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
