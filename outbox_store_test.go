package buffstreams

import (
	"context"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
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

// TestStoring_LeavesNothingBehind: a slice of calls without a time-out has the Publisher's context itself, which would keep
// one of its own for as long as the Publisher lives.
func TestStoring_LeavesNothingBehind(t *testing.T) {
	p := &Publisher{ctx: t.Context(), logger: watermill.NopLogger{}}
	first := p.storingNow()
	require.Equal(t, p.ctx, first.ctx)
	first.end() // a call that does not end is logged a second later, in another test
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
	require.Same(t, hasty, p.storingNow())
	hasty.end()
	hasty.until = time.Time{}
	next := p.storingNow()
	require.NotSame(t, hasty, next)
	next.end()
}
