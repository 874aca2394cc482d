package dispatch

import (
	"cmp"
	"slices"
)

// keyQueue orders the messages of one key: one of them, the holder, may be handled; the others wait here. The queue
// exists while there is a holder.
type keyQueue struct {
	name    string
	holder  uint64     // its position in the log
	waiting []Delivery // in the order of the log
}

// early is a claim that came before that of an earlier message, whose key may be the same.
type early struct {
	Delivery
	name string
}

// HasKey reports whether the delivery holds its key already: it was claimed before, and returned, or the key has come
// to it. It needs no Claim.
func (d *Delivery) HasKey() bool { return d.key != nil }

// Claim reports whether a delivery may be handled now, given its key: only one message of a key may at a time. If not,
// the group takes the delivery back, and gives it out again, ahead of what is behind it, when the key has come to it. A
// member that claims the key and then Settles or Refuses the delivery passes the key on; Return and Yield keep it for
// the delivery.
//
// Keys are claimed in the order of the log, however long members take to find them: the group keeps a claim that comes
// early until those of all earlier messages were made.
func (m *Member) Claim(d *Delivery, key string) bool {
	g := m.group
	g.topic.mu.Lock()
	defer g.topic.mu.Unlock()
	if g.dropped || d.key != nil { // of a dropped group no member would get it again
		return true
	}
	g.removeUnclaimed(d.pos())
	if g.keyUnknownBefore(d.pos()) {
		d.Detach()
		i, _ := slices.BinarySearchFunc(g.early, d.pos(), func(e early, pos uint64) int { return cmp.Compare(e.pos(), pos) })
		g.early = slices.Insert(g.early, i, early{*d, key})
		return false
	}
	claimed := g.claim(d, key)
	g.claimEarly()
	return claimed
}

// Forgo ends the wait for a delivery's key: it has none.
func (m *Member) Forgo(d *Delivery) {
	g := m.group
	g.topic.mu.Lock()
	defer g.topic.mu.Unlock()
	d.keyless = true
	g.removeUnclaimed(d.pos())
	g.claimEarly()
}

// claim makes a delivery the holder of its key, or has it wait for that.
func (g *group) claim(d *Delivery, key string) bool {
	q := g.keys[key]
	if q == nil {
		if g.keys == nil {
			g.keys = map[string]*keyQueue{}
		}
		q = &keyQueue{name: key, holder: d.pos()}
		g.keys[key] = q
	}
	if q.holder != d.pos() {
		d.Detach()
		q.waiting = insertOrdered(q.waiting, *d)
		return false
	}
	d.key = q
	return true
}

// claimEarly makes the claims that need not wait any more. What they claim is given out again, with its key.
func (g *group) claimEarly() {
	for len(g.early) > 0 && !g.keyUnknownBefore(g.early[0].pos()) {
		e := g.early[0]
		g.early = slices.Delete(g.early, 0, 1)
		if g.claim(&e.Delivery, e.name) {
			g.returned = insertOrdered(g.returned, e.Delivery)
			g.wake(1)
		}
	}
}

// keyUnknownBefore reports whether there is a message before pos that was given out, and whose key is not known: a
// member has it, or returned it.
func (g *group) keyUnknownBefore(pos uint64) bool {
	if len(g.unclaimed) > 0 && g.unclaimed[0] < pos {
		return true
	}
	for i := 0; i < len(g.returned) && g.returned[i].pos() < pos; i++ {
		if g.returned[i].key == nil {
			return true
		}
	}
	return false
}

func (g *group) addUnclaimed(pos uint64) {
	i, _ := slices.BinarySearch(g.unclaimed, pos)
	g.unclaimed = slices.Insert(g.unclaimed, i, pos)
}

func (g *group) removeUnclaimed(pos uint64) {
	if i, found := slices.BinarySearch(g.unclaimed, pos); found {
		g.unclaimed = slices.Delete(g.unclaimed, i, i+1)
	}
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
// even if a member ends the delivery without a Claim. In a dropped group none waits.
func (g *group) releaseKey(q *keyQueue) {
	switch {
	case q == nil:
	case len(q.waiting) == 0:
		delete(g.keys, q.name)
	default:
		next := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.holder, next.key = next.pos(), q
		g.returned = insertOrdered(g.returned, next)
		g.wake(1)
	}
}

// requeueKeyed gives back every message that waits for its key, or to claim it, in the order of the log, so that they
// are settled in few ranges.
func (g *group) requeueKeyed() {
	for _, q := range g.keys {
		g.returned = append(g.returned, q.waiting...)
		q.waiting = nil
	}
	for _, e := range g.early {
		g.returned = append(g.returned, e.Delivery)
	}
	g.early, g.unclaimed = nil, nil
	slices.SortFunc(g.returned, comparePos)
}

// forgetKeys has every message claim its key anew. The group has no members: all that held a key was given back.
func (g *group) forgetKeys() {
	g.requeueKeyed()
	for i := range g.returned {
		g.returned[i].key = nil
	}
	g.keys = nil
}

// insertOrdered puts a delivery into its place in the order of the log.
func insertOrdered(ds []Delivery, d Delivery) []Delivery {
	i, _ := slices.BinarySearchFunc(ds, d, comparePos)
	return slices.Insert(ds, i, d)
}

func comparePos(a, b Delivery) int { return cmp.Compare(a.pos(), b.pos()) }
