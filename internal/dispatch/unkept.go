package dispatch

import "slices"

// eachUntaken calls f for the messages that the group has not settled and no member has, in no order.
func (g *group) eachUntaken(f func(Delivery)) {
	for _, d := range g.returned {
		f(d)
	}
	for _, q := range g.keys {
		for _, d := range q.waiting {
			f(d)
		}
	}
	for _, e := range g.early {
		f(e.Delivery)
	}
	index := g.index
	for e := g.cursor; e.run != nil; e, index = e.next, 0 {
		if e.run.withdrawn {
			continue
		}
		for ; index < e.run.count(); index++ {
			f(Delivery{run: e.run, index: int32(index)})
		}
	}
}

// Unkept returns copies of the messages that a group has not settled, no member has, and no connected sender keeps,
// each once and in the order of the log: they are lost with the process. What is given out once more is not among them:
// its group had settled it, or has it still.
func (t *Topic) Unkept() (messages [][]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []Delivery
	for _, g := range t.groups {
		g.eachUntaken(func(d Delivery) {
			if !d.run.source.Kept() && !d.Again() {
				all = append(all, d)
			}
		})
	}
	slices.SortFunc(all, comparePos)
	all = slices.CompactFunc(all, func(a, b Delivery) bool { return a.pos() == b.pos() })
	for _, d := range all {
		messages = append(messages, d.Message())
	}
	return messages
}
