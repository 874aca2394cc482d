package dispatch

import (
	"hash/fnv"
	"io"
	"maps"
	"slices"
)

// RevocableSource is a Source whose sender may take back what no member has, to send it elsewhere.
type RevocableSource interface {
	Source
	// Revoked tells whether it does: no member gets any of its messages from then on. It must not block, and is called
	// with locks held.
	Revoked() bool
	// Returned reports consecutive messages of a revoked source that some group had not settled, and that no member has
	// any more. handled tells that the handler of another group had handled them. It is called as Settled is, and in
	// place of that.
	Returned(first, last uint64, handled bool)
}

func revoked(s Source) bool {
	r, ok := s.(RevocableSource)
	return ok && r.Revoked()
}

// Withdraw takes the messages of a revoked source that no member has out of all groups, and asks members to give back
// those that no handler has. What members keep comes back when they settle it or give it back.
func (t *Topic) Withdraw(source Source) {
	t.mu.Lock()
	t.beside.remove(source)
	t.union.remove(source)
	var done []settledRange
	for _, g := range t.groups {
		done = append(done, g.withdraw(source)...)
		for _, m := range g.members {
			m.recall()
		}
	}
	for e := t.firstLocked(); e != nil && e.run != nil; e = e.next {
		if e.run.source == source {
			e.run.withdrawn = true
		}
	}
	t.mu.Unlock()
	t.report(done)
	t.mayBeUnused()
}

// firstLocked is the oldest place in the log that a group has not passed.
func (t *Topic) firstLocked() (first *entry) {
	for _, g := range t.groups {
		if first == nil || g.cursor.run != nil && (first.run == nil || g.cursor.run.pos < first.run.pos) {
			first = g.cursor
		}
	}
	return first
}

// withdraw gives up the messages of a source that the group has not given to a member.
func (g *group) withdraw(source Source) (done []settledRange) {
	mine := func(d Delivery) bool { return d.run.source == source }
	var taken []Delivery
	take := func(ds []Delivery) []Delivery {
		kept := ds[:0]
		for _, d := range ds {
			if mine(d) {
				taken = append(taken, d)
			} else {
				kept = append(kept, d)
			}
		}
		clear(ds[len(kept):])
		return kept
	}
	g.returned = take(g.returned)
	for _, name := range slices.Sorted(maps.Keys(g.keys)) {
		g.keys[name].waiting = take(g.keys[name].waiting)
	}
	for _, m := range g.members {
		m.handed = take(m.handed)
	}
	keptEarly := g.early[:0]
	for _, e := range g.early {
		if mine(e.Delivery) {
			taken = append(taken, e.Delivery)
		} else {
			keptEarly = append(keptEarly, e)
		}
	}
	g.early = keptEarly
	index := g.index
	for e := g.cursor; e.run != nil; e, index = e.next, 0 {
		if e.run.source != source || e.run.withdrawn {
			continue
		}
		for ; index < e.run.count(); index++ {
			taken = append(taken, Delivery{run: e.run, index: int32(index)})
			g.passed++
		}
	}
	slices.SortFunc(taken, comparePos)
	for _, d := range taken {
		for _, s := range g.giveUp(d) {
			done = appendSettled(done, s)
		}
	}
	g.claimEarly()
	return done
}

// giveUp ends a delivery of a revoked source. The caller has to report what it returns.
func (g *group) giveUp(d Delivery) []settledRange {
	g.removeUnclaimed(d.pos())
	g.releaseKey(d.key)
	g.unsettled.Add(-1)
	if d.run.shared() {
		d.run.left[d.index] |= returned
	}
	s, last := d.settle(nil, g.topic.size)
	if !last {
		return nil
	}
	s.returned, s.refusal = true, nil // a run of one group does not say so itself
	return []settledRange{s}
}

// skipWithdrawn moves the cursor over runs that were withdrawn.
func (g *group) skipWithdrawn() {
	for g.cursor.run != nil && g.cursor.run.withdrawn {
		g.passed -= int(g.cursor.next.position(g.topic)-g.cursor.run.pos) - g.index
		g.cursor, g.index = g.cursor.next, 0
	}
}

// position is that of the place's first message in the log.
func (e *entry) position(t *Topic) uint64 {
	if e.run != nil {
		return e.run.pos
	}
	return t.pos
}

// remove takes the messages of a source out.
func (r *remainder) remove(source Source) {
	r.deliveries = slices.DeleteFunc(r.deliveries, func(d Delivery) bool { return d.run.source == source })
}

// recall has a member look at what it has.
func (m *Member) recall() {
	m.recalled.Store(true)
	m.notify()
}

// Recalled tells whether a source was revoked, or the group dropped, since the last call: the member is to give back
// what no handler has of what it MustReturn. It is notified.
func (m *Member) Recalled() bool { return m.recalled.Load() && m.recalled.Swap(false) }

// MustReturn tells whether the member has to Return a delivery, unless a handler has it: its source was revoked, or the
// group dropped.
func (m *Member) MustReturn(d *Delivery) bool {
	if revoked(d.run.source) {
		return true
	}
	m.group.topic.mu.Lock()
	defer m.group.topic.mu.Unlock()
	return m.group.dropped
}

// Elsewhere tells whether another receiver may have had the message.
func (d *Delivery) Elsewhere() bool { return d.run.elsewhere }

// GroupsDigest is a digest of the names of the topic's groups, declared ones included; 0: it has none with a name.
// Listeners that serve one topic together should have the same.
func (t *Topic) GroupsDigest() uint64 {
	t.mu.Lock()
	names := slices.Collect(maps.Keys(t.declared))
	for _, g := range t.groups {
		if g.name != "" {
			names = append(names, g.name)
		}
	}
	t.mu.Unlock()
	if len(names) == 0 {
		return 0
	}
	slices.Sort(names)
	h := fnv.New64a()
	for _, name := range names {
		_, _ = io.WriteString(h, name)
		_, _ = h.Write([]byte{0xff}) // no name has it, as they are UTF-8
	}
	return h.Sum64()
}
