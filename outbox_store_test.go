package buffstreams

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// appendFunc is an outbox that can store.
type appendFunc struct {
	store.Outbox
	store func(ctx context.Context) error
}

func (a appendFunc) Append(ctx context.Context, _ store.Key, _ ...[]byte) (uint64, error) {
	return 1, a.store(ctx)
}

func (appendFunc) Err() error { return nil }

// A call that the outbox has answered waits no more, whatever the answer is: the log tells of those that do.
func TestStoring_CountsTheCallsThatWait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := &Publisher{ctx: ctx, logger: watermill.NopLogger{}, users: usersOf(&sharer{})}
	p.cfg.PublishTimeout = time.Minute
	for _, answer := range []error{nil, &store.FullError{}, store.ErrFailed} {
		waiting := int64(0)
		p.cfg.Outbox = appendFunc{store: func(context.Context) error {
			waiting = p.storing.Load().calls.Load()
			return answer
		}}
		_, _, err := p.store(ctx, &target{}, &session.Batch{}, keyed("a"), p.cfg.PublishTimeout)
		require.ErrorIs(t, err, answer)
		require.EqualValues(t, 1, waiting)
		require.Zero(t, p.storing.Load().calls.Load())
	}
}

// TestStoring_WhatItMayHaveKeptIsUnknown: a failed write can be seen when the outbox is opened anew. What it refused is not sent.
func TestStoring_WhatItMayHaveKeptIsUnknown(t *testing.T) {
	p := &Publisher{ctx: t.Context(), logger: watermill.NopLogger{}, users: usersOf(&sharer{})}
	p.cfg.PublishTimeout = time.Minute
	all := []session.Range{{First: 0, Last: 1}}
	for _, c := range []struct {
		answer error
		kept   bool
	}{{store.ErrFailed, true}, {&store.UnconfirmedError{}, true}, {&hook.PanicError{}, true}, {&store.FullError{}, false}, {store.ErrClosed, false}} {
		p.cfg.Outbox = appendFunc{store: func(context.Context) error { return c.answer }}
		enqueued, lacking, err := p.store(p.ctx, &target{}, &session.Batch{}, keyed("a", "b"), p.cfg.PublishTimeout)
		require.ErrorIs(t, err, c.answer)
		require.Equal(t, c.kept, enqueued == 2, c.answer)
		require.Equal(t, c.kept, len(lacking) == 1 && lacking[0] == all[0], c.answer)
	}
}

// TestStoring_SaysThatCallsWait, if any does.
func TestStoring_SaysThatCallsWait(t *testing.T) {
	log := testkit.NewLog()
	p := &Publisher{ctx: t.Context(), logger: log}
	p.cfg.Outbox = appendFunc{}
	s := &storing{began: time.Now()}
	p.sayStoring(s)
	require.Empty(t, log.Lines)
	s.calls.Add(2)
	p.sayStoring(s)
	require.EqualValues(t, 2, log.Next(t, "info").Fields["calls"])
}

// TestStoring_LeavesNothingBehind: a slice of calls without a time-out has the Publisher's context itself, which would keep
// one of its own for as long as the Publisher lives.
func TestStoring_LeavesNothingBehind(t *testing.T) {
	p := &Publisher{ctx: t.Context(), logger: watermill.NopLogger{}}
	first := p.storingNow()
	first.end()
	require.Equal(t, p.ctx, first.ctx)
	p.cfg.PublishTimeout = time.Minute
	s := p.nextStoring(p.storing.Load(), time.Now())
	deadline, ok := s.ctx.Deadline()
	require.True(t, ok)
	require.WithinDuration(t, s.began.Add(time.Minute), deadline, time.Second)

	base := newLasting()
	p.ctx = base
	require.Same(t, s, p.nextStoring(nil, time.Now()), "another call was first")
	require.Zero(t, base.waiting.Load())

	p.cfg.PublishTimeout = time.Second
	hasty := p.nextStoring(s, s.began)
	require.Equal(t, s.began.Add(50*time.Millisecond), hasty.until, "calls wait for PublishTimeout, nearly")
	hasty.until = time.Now().Add(time.Hour)
	now := p.storingNow()
	now.end()
	require.Same(t, hasty, now)
	hasty.until = time.Time{}
	now = p.storingNow()
	now.end()
	require.NotSame(t, hasty, now)
}

// TestStoring_ACallHasTheTimeThatIsLeft: it has waited for its route, or the context of its message counts.
func TestStoring_ACallHasTheTimeThatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		p := &Publisher{ctx: ctx, logger: watermill.NopLogger{}, users: usersOf(&sharer{})}
		p.cfg.PublishTimeout = time.Minute
		p.cfg.Outbox = appendFunc{store: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		stored := func(ctx context.Context, left time.Duration) error {
			_, _, err := p.store(ctx, &target{}, &session.Batch{}, keyed("a"), left)
			return err
		}
		began := time.Now()
		require.ErrorIs(t, stored(ctx, time.Second), ErrTimeout)
		require.Equal(t, time.Second, time.Since(began))
		message, end := context.WithCancel(ctx)
		time.AfterFunc(time.Second, end)
		err := stored(message, time.Minute)
		require.ErrorIs(t, err, context.Canceled)
		require.NotErrorIs(t, err, ErrTimeout)
		require.Equal(t, 2*time.Second, time.Since(began))
	})
}
