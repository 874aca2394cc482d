package outbox

import "sort"

// cache keeps the newest groups in memory, so that readers that keep up do not read the log. The oldest group goes
// first, and with it the first recent section of each of its streams. Outbox.mu guards it.
type cache struct {
	limit  int // bytes
	size   int // bytes
	groups []*group
}

// add adds a durable group. A group that is too large empties the cache, because a stream's recent sections must not
// have gaps.
func (c *cache) add(g *group) {
	if len(g.entry) > c.limit {
		c.shrink(0)
		return
	}
	c.shrink(c.limit - len(g.entry))
	for i := range g.sections {
		s := g.sections[i].stream
		s.recent = append(s.recent, &g.sections[i])
	}
	c.groups = append(c.groups, g)
	c.size += len(g.entry)
}

// shrink drops old groups until at most size bytes are left.
func (c *cache) shrink(size int) {
	n := 0
	for ; n < len(c.groups) && c.size > size; n++ {
		g := c.groups[n]
		c.size -= len(g.entry)
		for _, sec := range g.sections {
			s := sec.stream
			s.recent[0] = nil
			s.recent = s.recent[1:]
		}
		c.groups[n] = nil
	}
	c.groups = c.groups[n:]
}

// searchRecent returns the place of the first recent section that ends at seq or above.
func (s *stream) searchRecent(seq uint64) int {
	return sort.Search(len(s.recent), func(i int) bool { return s.recent[i].last() >= seq })
}
