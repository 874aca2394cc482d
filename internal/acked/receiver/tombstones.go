package receiver

import "time"

// tombstones are the names of topics that ended a while ago: their publishers learn at once that the topic is gone,
// instead of waiting for one that may yet exist. The zero value is empty. Receiver.mu guards it.
type tombstones struct {
	until map[string]time.Time
	order []tombstone // in the order of add
}

type tombstone struct {
	name  string
	until time.Time
}

// add notes a name for as long as ttl, and forgets the oldest names over the limit.
func (t *tombstones) add(name string, now time.Time, ttl time.Duration, limit int) {
	if t.until == nil {
		t.until = map[string]time.Time{}
	}
	entry := tombstone{name, now.Add(ttl)}
	t.until[name] = entry.until
	t.order = append(t.order, entry)
	t.purge(now, limit)
}

// has tells whether the topic of a name ended within its ttl.
func (t *tombstones) has(name string, now time.Time) bool {
	t.purge(now, len(t.order))
	_, ok := t.until[name]
	return ok
}

// remove forgets a name that exists again.
func (t *tombstones) remove(name string) { delete(t.until, name) }

// purge forgets the names whose ttl is over, and the oldest over the limit.
func (t *tombstones) purge(now time.Time, limit int) {
	n := 0
	for n < len(t.order) && (len(t.order)-n > limit || !now.Before(t.order[n].until)) {
		if oldest := t.order[n]; t.until[oldest.name].Equal(oldest.until) {
			delete(t.until, oldest.name)
		}
		n++
	}
	clear(t.order[:n])
	if t.order = t.order[n:]; len(t.order) == 0 {
		t.until, t.order = nil, nil
	}
}
