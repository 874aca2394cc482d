package dispatch

import (
	"cmp"
	"slices"
	"sync"
)

// keyQueue keeps the messages of one key in order: one of them, the holder, may be handled; the others wait here, in the
// order of the log. It exists while there is a holder.
type keyQueue struct {
	name    string
	holder  uint64 // position in the log
	waiting []Delivery
}

// Turn is the group's lock for whoever takes a delivery and claims its key: the two must be one step in the whole group,
// or a later message of the key could come first.
func (m *Member) Turn() sync.Locker { return &m.group.turn }

// Claim asks whether a delivery may be handled now, given its key: not while another of the same key is. Then it is
// taken back and comes up again, ahead of what is behind it, when its turn has come. Whoever claimed and then Settles or
// Refuses the delivery gives the key on; Return keeps the delivery's turn.
func (m *Member) Claim(d *Delivery, key string) bool {
	g := m.group
	g.topic.mu.Lock()
	defer g.topic.mu.Unlock()
	if g.gone { // nobody would bring it up again
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
		q.waiting = insert(q.waiting, *d)
		return false
	}
	d.key = q
	return true
}

// unclaim lets the key's next delivery have its turn. The topic's mutex is held.
func (g *Group) unclaim(d Delivery) {
	q := d.key
	switch {
	case q == nil:
	case len(q.waiting) == 0:
		delete(g.keys, q.name)
	default:
		next := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.holder, next.key = next.pos(), q // however it ends, claimed again or not, the key goes on
		if !g.gone {
			g.returned = insert(g.returned, next)
			g.wake(1)
		}
	}
}

// unpark puts every waiting delivery back into line, in the order of the log and not of the map: what is settled in that
// order is told in that order, and in fewer runs. The topic's mutex is held.
func (g *Group) unpark() {
	for _, q := range g.keys {
		g.returned = append(g.returned, q.waiting...)
		q.waiting = nil
	}
	slices.SortFunc(g.returned, func(a, b Delivery) int { return cmp.Compare(a.pos(), b.pos()) })
}
