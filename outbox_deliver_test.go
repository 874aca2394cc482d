package buffstreams

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestDeliver_PausesBeforeTheNextAttempt, for as long as its error makes sense of.
func TestDeliver_PausesBeforeTheNextAttempt(t *testing.T) {
	broken := errors.New("broken")
	attempts := []struct {
		err       error
		renounces bool
		pause     time.Duration
	}{
		{err: broken, pause: retryPause},
		{err: fmt.Errorf("wrapped: %w", ErrFenced), pause: fencedPause},
		{err: session.ErrCopied, renounces: true},
		{err: ErrNeverSent, renounces: true},
		{err: session.ErrCopied, pause: fencedPause},
		{err: ErrNeverSent, pause: fencedPause},
		{err: ErrTopicGone, pause: retryPause}, // the outbox has no such stream any more
		{err: store.ErrClosed},
	}
	synctest.Test(t, func(t *testing.T) {
		p := newTestPublisher(t, EnvelopeMarshaler{})
		o := &scriptedOutbox{stream: store.Stream{ID: 7, Key: store.Key{Destination: "127.0.0.1:1", Topic: "orders"}, First: 1, Next: 1}}
		o.forget = func() error { return store.ErrPending }
		o.read = func(from uint64) (store.Batch, error) { return store.Batch{First: from}, nil }
		n, due, refusing := 0, time.Now(), false
		o.readable = func(uint64) (<-chan struct{}, error) {
			if refusing { // this is refuseAll
				refusing = false
				return nil, store.ErrUnknownStream
			}
			a := attempts[n]
			require.Equal(t, due, time.Now(), "attempt %d", n)
			n++
			due = due.Add(a.pause)
			refusing = errors.Is(a.err, ErrTopicGone)
			o.renounce = func() (bool, error) { return a.renounces, nil }
			return nil, a.err
		}
		r, _ := newTestRelay(t, o)
		r.manager = p.manager
		r.deliver(o.stream)
		require.Equal(t, len(attempts), n)
		require.NoError(t, r.ctx.Err(), "it was not stopped")
		require.NoError(t, p.Close())
	})
}

// TestDeliver_ADamagedMessageIsReadAgainAfterAPause, and what was sent before it is on its way meanwhile.
func TestDeliver_ADamagedMessageIsReadAgainAfterAPause(t *testing.T) {
	_, s, l := newPair(t, AckedConfig{})
	o, again := &scriptedOutbox{}, make(chan struct{})
	o.stream = store.Stream{ID: 1, Key: store.Key{Destination: l.Addr().String(), Topic: "orders"}, First: 1, Next: 2, Pending: 1}
	reads := 0
	o.read = func(uint64) (store.Batch, error) {
		if reads++; reads == 2 {
			close(again)
		}
		return store.Batch{}, &store.CorruptError{}
	}
	o.readable = func(uint64) (<-chan struct{}, error) { return make(chan struct{}), nil }
	r, log := newTestRelay(t, o)
	cfg := fetchConfig()
	cfg.OnSettled = r.onSettled
	fetched, err := s.Fetch(cfg)
	require.NoError(t, err)
	newConsumer(l, "orders")
	ended := make(chan error, 1)
	go func() { ended <- r.serve(o.stream, fetched) }() // ends with the relay
	select {
	case line := <-log.Lines:
		require.Equal(t, "Messages of an outbox cannot be delivered; they are kept", line.Msg)
		require.ErrorAs(t, line.Err, new(*store.CorruptError))
	case <-again:
		require.Fail(t, "it was read again without a pause")
	}
	r.cancel()
	require.Error(t, <-ended)
}
