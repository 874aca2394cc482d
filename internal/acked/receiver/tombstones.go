package receiver

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// tombstones are the names of topics that ended a while ago: their publishers learn at once that the topic is gone,
// instead of waiting for one that may yet exist. The zero value is empty. Receiver.mu guards it.
type tombstones struct {
	forgotten func(*dispatch.Topic) // called for each topic when its time is over; nil: nothing is
	until     map[string]time.Time
	order     []tombstone // in the order of add
}

type tombstone struct {
	topic *dispatch.Topic
	until time.Time
}

// add notes a topic for as long as ttl, and forgets the oldest topics over the limit. Its name is not noted if another
// topic has it already.
func (t *tombstones) add(topic *dispatch.Topic, nameTaken bool, now time.Time, ttl time.Duration, limit int) {
	if t.until == nil {
		t.until = map[string]time.Time{}
	}
	entry := tombstone{topic, now.Add(ttl)}
	if !nameTaken {
		t.until[topic.Name()] = entry.until
	}
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

// purge forgets the topics whose ttl is over, and the oldest over the limit.
func (t *tombstones) purge(now time.Time, limit int) {
	n := 0
	for n < len(t.order) && (len(t.order)-n > limit || !now.Before(t.order[n].until)) {
		oldest := t.order[n]
		if name := oldest.topic.Name(); t.until[name].Equal(oldest.until) {
			delete(t.until, name)
		}
		if t.forgotten != nil {
			t.forgotten(oldest.topic)
		}
		n++
	}
	clear(t.order[:n])
	if t.order = t.order[n:]; len(t.order) == 0 {
		t.until, t.order = nil, nil
	}
}
