package outbox

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/buffstreams/watermill-buffstreams/store"
)

const (
	// readyPoll is the time between two looks of Ready.
	readyPoll = 20 * time.Millisecond
	// slowWrite is how long a write to the disk may take before the outbox is not ready.
	slowWrite = time.Second
	// maxReasons bounds the destinations that Ready names.
	maxReasons = 20
)

// Ready waits until Append would take messages, or ctx is done. Then the error is a *store.NotReadyError that says why
// not:
//
//   - A write to the disk has been under way for over a second: a *store.SlowDiskError.
//   - A destination had no room for what was last appended to it, and has none yet: a *store.FullError for each, the first 20.
//   - The outbox was closed, or a write has failed: store.ErrClosed, or an error that wraps store.ErrFailed. Neither ends, so
//     Ready returns at once.
//
// With a ctx that is done it only looks. An outbox that Open has returned is recovered and holds the lock of its
// directory. Ready stores nothing and does not touch the disk. That no publisher delivers it does not count: see
// store.OutboxStats.Delivering.
func (o *Outbox) Ready(ctx context.Context) error {
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	for {
		reasons, final := o.notReady()
		if len(reasons) == 0 {
			return nil
		}
		err := &store.NotReadyError{Outbox: o.cfg.Dir, Reasons: reasons}
		if final {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return err
		}
	}
}

// notReady says why Append would not take messages now. final tells that it never will again.
func (o *Outbox) notReady() (reasons []error, final bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.errLocked(); err != nil {
		return []error{err}, true
	}
	if since := o.writingSince(); !since.IsZero() && time.Since(since) > slowWrite {
		reasons = append(reasons, &store.SlowDiskError{Since: since})
	}
	var full []*destination
	for _, d := range o.index.destinations {
		if d.refused > 0 && d.bytes+d.refused > o.cfg.QuotaBytes {
			full = append(full, d)
		}
	}
	slices.SortFunc(full, func(a, b *destination) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), strings.Compare(a.name, b.name))
	})
	for _, d := range full[:min(len(full), maxReasons)] {
		reasons = append(reasons, &store.FullError{Destination: d.name, Pending: d.bytes, Wanted: d.refused, Quota: o.cfg.QuotaBytes})
	}
	return reasons, false
}

// noteWriting says that the committer begins to use the disk, or, with false, that it has ended.
func (o *Outbox) noteWriting(begins bool) {
	if !begins {
		o.writing.Store(0)
		return
	}
	o.writing.Store(int64(max(1, time.Since(o.opened))))
}

// writingSince is when the committer has begun to use the disk; zero: it does not use it.
func (o *Outbox) writingSince() (since time.Time) {
	if at := o.writing.Load(); at != 0 {
		since = o.opened.Add(time.Duration(at))
	}
	return since
}
