package outbox

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/hooks"
)

// watchers are Config.Hooks, sorted by what they watch. They are called with no lock held. A panic is lost: an outbox
// has no log.
type watchers struct {
	appended  []hooks.OutboxAppendedHook
	synced    []hooks.OutboxSyncedHook
	recovered []hooks.OutboxRecoveredHook
}

func newWatchers(all []hooks.Hook) watchers {
	return watchers{
		hooks.Of[hooks.OutboxAppendedHook](all), hooks.Of[hooks.OutboxSyncedHook](all), hooks.Of[hooks.OutboxRecoveredHook](all),
	}
}

// call calls one method of a hook, and contains its panic.
func call[H, E any](h H, method func(H, E), e E) {
	defer func() { _ = recover() }()
	method(h, e)
}

// clock returns now if any of the hooks is to be called.
func clock[H any](all []H) (now time.Time) {
	if len(all) > 0 {
		now = time.Now()
	}
	return now
}

// since is the time since clock returned began; 0 if that was not asked for.
func since(began time.Time) time.Duration {
	if began.IsZero() {
		return 0
	}
	return time.Since(began)
}

func (w *watchers) tellAppended(e hooks.OutboxAppended) {
	for _, h := range w.appended {
		call(h, hooks.OutboxAppendedHook.OnOutboxAppended, e)
	}
}

func (w *watchers) tellSynced(e hooks.OutboxSynced) {
	for _, h := range w.synced {
		call(h, hooks.OutboxSyncedHook.OnOutboxSynced, e)
	}
}

// tellRecovered tells how Open has ended, before it returns.
func (o *Outbox) tellRecovered(began time.Time, err error) {
	if len(o.watchers.recovered) == 0 {
		return
	}
	e := hooks.OutboxRecovered{Outbox: o.cfg.Dir, Took: time.Since(began), Err: err}
	if err == nil {
		s := o.Stats()
		e.Messages, e.Bytes = s.Pending, s.Bytes
	}
	for _, h := range o.watchers.recovered {
		call(h, hooks.OutboxRecoveredHook.OnOutboxRecovered, e)
	}
}
