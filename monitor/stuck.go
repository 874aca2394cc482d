package monitor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

// Stuck is something that does not get on, or soon will not, and why.
type Stuck struct {
	// What is "address", "listener", "topic", "group", "key" or "outbox".
	What string `json:"what"`
	// Name says which: its source and its own name.
	Name string `json:"name"`
	// Critical: messages wait. Otherwise it is a warning.
	Critical bool `json:"critical"`
	// Why is a sentence for people.
	Why string `json:"why"`
	// Since is when it began, or the age of the oldest message; zero: that is not known.
	Since time.Time `json:"since,omitzero"`
}

const (
	// connectingLong is how long an attempt to connect may take before it is shown.
	connectingLong = 5 * time.Second
	// slowDisk is how long a write of an outbox may take before it is shown.
	slowDisk = 2 * time.Second
	// nearlyFull is the part of an outbox's quota from which on it is shown.
	nearlyFull = 0.8
	// maxStuck bounds what is shown.
	maxStuck = 200
)

// finder collects what is stuck.
type finder struct {
	now   time.Time
	after time.Duration
	all   []Stuck
}

// stuck looks through a snapshot.
func (m *Monitor) stuck(s snapshot) []Stuck {
	f := &finder{now: s.at, after: m.cfg.StuckAfter}
	for i := range s.addresses {
		f.address(&s.addresses[i])
	}
	for i := range s.topics {
		f.published(&s.topics[i])
	}
	for i := range s.listeners {
		f.listener(&s.listeners[i])
	}
	for i := range s.outboxes {
		f.outbox(&s.outboxes[i])
	}
	slices.SortStableFunc(f.all, func(a, b Stuck) int {
		switch {
		case a.Critical != b.Critical:
			if a.Critical {
				return -1
			}
			return 1
		case a.Since.IsZero() != b.Since.IsZero():
			if b.Since.IsZero() {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Name, b.Name))
	})
	return f.all[:min(len(f.all), maxStuck)]
}

func (f *finder) add(what, name string, critical bool, since time.Time, format string, args ...any) {
	f.all = append(f.all, Stuck{What: what, Name: name, Critical: critical, Since: since, Why: fmt.Sprintf(format, args...)})
}

// old tells whether a message is older than it should be.
func (f *finder) old(since time.Time) bool { return !since.IsZero() && f.now.Sub(since) >= f.after }

func (f *finder) address(a *Address) {
	name := a.Source + " to " + a.Address
	waiting := 0
	for _, s := range a.Streams {
		waiting += s.Waiting
	}
	because := ""
	if a.LastError != "" {
		because = ": " + a.LastError
	}
	old := f.old(a.OldestUnsettled)
	switch a.State {
	case "ready":
		if old {
			f.add("address", name, true, a.OldestUnsettled, "connected, but the oldest message is not settled: look at the peer's groups; %s", wait(a.Pending))
		}
	case "silent":
		f.add("address", name, true, a.Since, "nothing was heard of the peer%s; %s", because, wait(a.Pending))
	case "gone":
		f.add("address", name, a.Pending > 0, a.Since, "no connection, and nothing listens there%s; %s", because, wait(a.Pending))
	case "failed":
		f.add("address", name, a.Pending > 0, a.Since, "no connection, and the last attempt failed%s; %s", because, wait(a.Pending))
	case "draining":
		f.add("address", name, old, a.Since, "the peer closes its listener; %s", wait(a.Pending))
	default: // connecting, idle, and what this package does not know
		if old || a.State == "connecting" && f.now.Sub(a.Since) >= connectingLong {
			f.add("address", name, a.Pending > 0, a.Since, "it is %s for long%s; %s", a.State, because, wait(a.Pending))
		}
	}
	if waiting > 0 && a.State == "ready" {
		f.add("address", name, true, time.Time{}, "Publish calls that wait for room in the window: %d", waiting)
	}
}

// published is about a topic whose lookups fail.
func (f *finder) published(t *published) {
	name := t.source + " to topic " + t.Topic
	if len(t.Addresses) == 0 {
		f.add("topic", name, true, t.LookupFailing, "it has no route: %s; %s", t.LookupError, calls(t.Calls))
		return
	}
	f.add("topic", name, false, t.LookupFailing, "its route cannot be looked up, and the last one is kept (%s): %s",
		strings.Join(t.Addresses[:min(3, len(t.Addresses))], ", "), t.LookupError)
}

func calls(n int) string {
	if n == 1 {
		return "1 Publish call waits"
	}
	return fmt.Sprintf("%d Publish calls wait", n)
}

func wait(n int) string {
	switch n {
	case 0:
		return "no message waits"
	case 1:
		return "1 message waits"
	}
	return fmt.Sprintf("%d messages wait", n)
}

func (f *finder) listener(l *Listener) {
	at := l.Source + " at " + l.Bound
	switch l.State {
	case "held":
		f.add("listener", at, true, time.Time{}, "it takes no messages yet: its Ready channel is open")
	case "draining":
		f.add("listener", at, false, time.Time{}, "it is closing")
	}
	for i := range l.Topics {
		t := &l.Topics[i]
		name := at + "/" + t.Topic
		if len(t.Missing) > 0 {
			f.add("topic", name, true, time.Time{}, "declared groups have not subscribed: %s", strings.Join(t.Missing, ", "))
		}
		if t.Shortage != "" {
			f.add("topic", name, true, time.Time{}, "publishers get no room: %s", t.Shortage)
		}
		for _, g := range t.Groups {
			f.group(name, t.Window, g)
		}
	}
}

func (f *finder) group(topic string, window int, g buffstreams.GroupStats) {
	name := topic + " group " + groupName(g.Group)
	switch {
	case window > 0 && g.Lag >= window:
		f.add("group", name, true, g.OldestUnsettled, "it is a whole window behind, and holds up the topic: %s; %s", wait(g.Lag), members(g))
	case f.old(g.OldestUnsettled):
		f.add("group", name, true, g.OldestUnsettled, "its oldest message is not settled; %s; %s", wait(g.Lag), members(g))
	}
	for _, k := range g.StuckKeys {
		if f.old(k.Oldest) {
			f.add("key", fmt.Sprintf("%s key %q", name, k.Key), true, k.Oldest, "a message with this key is not settled, and those behind it wait: %d", k.Waiting)
		}
	}
}

func members(g buffstreams.GroupStats) string {
	if g.Members == 0 {
		return "it has no subscription"
	}
	return fmt.Sprintf("its handlers have %d", g.InFlight)
}

func groupName(name string) string {
	if name == "" {
		return "(none)"
	}
	return name
}

func (f *finder) outbox(o *OutboxStats) {
	if o.Err != "" {
		f.add("outbox", o.Source+" in "+o.Name, true, time.Time{}, "it takes nothing any more: %s", o.Err)
	}
	if !o.WritingSince.IsZero() && f.now.Sub(o.WritingSince) >= slowDisk {
		f.add("outbox", o.Source+" in "+o.Name, true, o.WritingSince, "a write to its disk has not ended; %s", wait(int(o.Pending)))
	}
	if !o.Delivering && o.Pending > 0 {
		f.add("outbox", o.Source+" in "+o.Name, true, o.OldestUnsettled, "no publisher delivers it; %s", wait(int(o.Pending)))
	}
	for _, d := range o.Destinations {
		name := o.Source + " in " + o.Name + " for " + d.Name
		switch full := float64(d.Bytes) / float64(o.QuotaBytes); {
		case o.QuotaBytes > 0 && full >= nearlyFull:
			f.add("outbox", name, full >= 1, d.OldestUnsettled, "%.0f %% of its quota are taken; %s", 100*full, wait(int(d.Pending)))
		case f.old(d.OldestUnsettled):
			f.add("outbox", name, true, d.OldestUnsettled, "its oldest message is not settled; %s", wait(int(d.Pending)))
		}
	}
}
