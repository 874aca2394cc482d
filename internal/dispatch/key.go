package dispatch

import (
	"cmp"
	"slices"
	"sync"
)

// keyQueue orders the messages of one key: one of them, the holder, may be handled; the others wait here. The queue
// exists while there is a holder.
type keyQueue struct {
	name    string
	holder  uint64     // its position in the log
	waiting []Delivery // in the order of the log
}

// KeyLock is the group's lock for taking a delivery and claiming its key. A member has to hold it over both, or a later
// message of the key could be claimed first. It is locked before any other lock of this package.
func (m *Member) KeyLock() sync.Locker { return &m.group.keyLock }

// Claim reports whether a delivery may be handled now, given its key: only one message of a key may at a time. If not,
// the group takes the delivery back, and gives it out again, ahead of what is behind it, when the key has come to it. A
// member that claims the key and then Settles or Refuses the delivery passes the key on; Return and Yield keep it for
// the delivery.
func (m *Member) Claim(d *Delivery, key string) bool {
	g := m.group
	g.topic.mu.Lock()
	defer g.topic.mu.Unlock()
	if g.dropped { // no member would get it again
		return true
	}
	q := g.keys[key]
	if q == nil {
		if g.keys == nil {
			g.keys = map[string]*keyQueue{}
		}
		q = &keyQueue{name: key, holder: d.pos()}
		g.keys[key] = q
	}
	if q.holder != d.pos() {
		q.waiting = insertOrdered(q.waiting, *d)
		return false
	}
	d.key = q
	return true
}

// releaseKeys passes on the keys that deliveries hold.
func (m *Member) releaseKeys(ds []Delivery) {
	m.group.topic.mu.Lock()
	defer m.group.topic.mu.Unlock()
	for _, d := range ds {
		m.group.releaseKey(d.key)
	}
}

// releaseKey makes the next message of a key its holder. That message has the key from now on, so that the key goes on
// even if a member ends the delivery without a Claim.
func (g *group) releaseKey(q *keyQueue) {
	switch {
	case q == nil:
	case len(q.waiting) == 0:
		delete(g.keys, q.name)
	default:
		next := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.holder, next.key = next.pos(), q
		if !g.dropped {
			g.returned = insertOrdered(g.returned, next)
			g.wake(1)
		}
	}
}

// requeueKeyed gives back every message that waits for its key, in the order of the log, so that they are settled in
// few ranges.
func (g *group) requeueKeyed() {
	for _, q := range g.keys {
		g.returned = append(g.returned, q.waiting...)
		q.waiting = nil
	}
	slices.SortFunc(g.returned, comparePos)
}

// insertOrdered puts a delivery into its place in the order of the log.
func insertOrdered(ds []Delivery, d Delivery) []Delivery {
	i, _ := slices.BinarySearchFunc(ds, d, comparePos)
	return slices.Insert(ds, i, d)
}

func comparePos(a, b Delivery) int { return cmp.Compare(a.pos(), b.pos()) }
