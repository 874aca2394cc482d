package receiver

import "time"

// tombstones are the names of topics that ended a while ago: their publishers learn at once that nobody will come, instead
// of waiting for a topic that may yet exist. The zero value is empty.
type tombstones struct {
	until map[string]time.Time
	order []tombstone // by the time they were added
}

type tombstone struct {
	name  string
	until time.Time
}

// add notes a name for a while, and forgets the oldest beyond limit.
func (g *tombstones) add(name string, now time.Time, keep time.Duration, limit int) {
	if g.until == nil {
		g.until = map[string]time.Time{}
	}
	t := tombstone{name, now.Add(keep)}
	g.until[name] = t.until
	g.order = append(g.order, t)
	g.purge(now, limit)
}

// has tells whether a name ended a while ago.
func (g *tombstones) has(name string, now time.Time) bool {
	g.purge(now, len(g.order))
	_, ok := g.until[name]
	return ok
}

// remove forgets a name that exists again.
func (g *tombstones) remove(name string) { delete(g.until, name) }

// purge forgets what has passed, and the oldest beyond limit.
func (g *tombstones) purge(now time.Time, limit int) {
	n := 0
	for n < len(g.order) && (len(g.order)-n > limit || !now.Before(g.order[n].until)) {
		if t := g.order[n]; g.until[t.name].Equal(t.until) {
			delete(g.until, t.name)
		}
		n++
	}
	clear(g.order[:n])
	if g.order = g.order[n:]; len(g.order) == 0 {
		g.until, g.order = nil, nil
	}
}
