package buffstreams

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// storing is the calls of Append that begin within a slice of time. They share the context that ends them, and the line
// that says why they wait: timers for each call would cost more than the rest of what this side does for it.
type storing struct {
	ctx    context.Context // ends at the latest PublishTimeout after each of them has begun, and with Close
	cancel context.CancelFunc
	began  time.Time
	until  time.Time    // calls that begin later have the next one
	calls  atomic.Int64 // under way
}

// storingSlice is the longest slice of time. A call may wait for less than PublishTimeout by as much, or by a twentieth
// of it.
const storingSlice = time.Second

// errStoring is what calls wait for whose outbox says no more.
var errStoring = errors.New("the Outbox has not stored the messages")

// storingNow returns the present slice, in which the caller counts until it calls end.
func (p *Publisher) storingNow() *storing {
	now := time.Now()
	s := p.storing.Load()
	if s == nil || now.After(s.until) {
		s = p.nextStoring(s, now)
	}
	s.calls.Add(1)
	return s
}

func (s *storing) end() { s.calls.Add(-1) }

// nextStoring returns the slice that follows last, of which several calls may find at once that it is over.
func (p *Publisher) nextStoring(last *storing, now time.Time) *storing {
	slice, timeout := storingSlice, p.cfg.PublishTimeout
	next := &storing{ctx: p.ctx, cancel: func() {}, began: now}
	if timeout > 0 {
		slice = min(slice, timeout/20)
		next.ctx, next.cancel = context.WithTimeout(p.ctx, timeout) // which ends then: a slice is not cancelled
	}
	next.until = now.Add(slice)
	if !p.storing.CompareAndSwap(last, next) {
		next.cancel()
		return p.storing.Load()
	}
	time.AfterFunc(slice+longWait, func() { p.sayStoring(next) }) // all of them have waited for longWait then
	return next
}

// sayStoring logs why calls wait for the outbox, if some do.
func (p *Publisher) sayStoring(s *storing) {
	calls := s.calls.Load()
	if calls == 0 || p.ctx.Err() != nil {
		return
	}
	if _, ok := p.storeWaits.Say(); !ok {
		return
	}
	reason := errStoring.Error()
	if reasons := outboxReady(p.cfg.Outbox); len(reasons) > 0 {
		texts := make([]string, len(reasons))
		for i, r := range reasons {
			texts[i] = netio.Sanitize(r).Error()
		}
		reason = strings.Join(texts, "; ")
	}
	p.logger.Info("Publish has waited for more than a second", watermill.LogFields{
		"provider": provider, "outbox": netio.Quote(outboxName(p.cfg.Outbox)), "waited": time.Since(s.began).Round(time.Millisecond),
		"calls": calls, "reason": reason,
	})
}

// store puts messages into the outbox. It returns the parts of a sendResult. ctx and timeout are what the call has
// left.
func (p *Publisher) store(
	ctx context.Context, t *target, batch *session.Batch, messages []*message.Message, timeout time.Duration,
) (enqueued int, lacking []session.Range, err error) {
	key := store.Key{Destination: t.peer, Topic: t.name}
	p.users.published(p, key)
	now := p.storingNow()
	defer now.end()
	bound := now.ctx
	if ctx != p.ctx || timeout != p.cfg.PublishTimeout { // a context of the caller's counts, or the call has waited already
		cancel := func() {}
		if bound = ctx; timeout > 0 {
			bound, cancel = context.WithTimeout(ctx, timeout)
		}
		defer cancel()
	}
	_, err = p.cfg.Outbox.Append(bound, key, batch.Messages()...)
	if err == nil {
		return 0, nil, nil
	}
	if ctx.Err() == nil && bound.Err() != nil {
		err = &TimeoutError{Cause: p.explainStoring(err)}
	}
	// What a failed write left on the disk is only seen when the outbox is opened anew.
	unconfirmed, panicked := (*store.UnconfirmedError)(nil), (*hook.PanicError)(nil)
	if errors.As(err, &unconfirmed) || errors.As(err, &panicked) || errors.Is(err, store.ErrFailed) {
		all := session.Range{First: 0, Last: uint64(len(messages) - 1)}
		return len(messages), []session.Range{all}, err
	}
	return 0, nil, err
}

// explainStoring adds to the error of an Append that the disk does not answer, if the outbox says so.
func (p *Publisher) explainStoring(err error) error {
	for _, reason := range outboxReady(p.cfg.Outbox) {
		if slow := (*store.SlowDiskError)(nil); errors.As(reason, &slow) {
			return fmt.Errorf("%w: %w", slow, err)
		}
	}
	return err
}
