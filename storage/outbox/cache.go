package outbox

import "sort"

// The newest groups stay in memory as long as CacheBytes allow, so that readers
// that keep up do not read the log at all. The oldest group goes first, and with
// it the front of each of its streams' recent sections.

// cache keeps a durable group. mu is held.
func (o *Outbox) cache(g *group) {
	if len(g.entry) > o.cfg.CacheBytes {
		// A stream's recent sections must not have gaps.
		o.dropCache(0)
		return
	}
	o.dropCache(o.cfg.CacheBytes - len(g.entry))
	for i := range g.sections {
		s := g.sections[i].stream
		s.recent = append(s.recent, &g.sections[i])
	}
	o.cached = append(o.cached, g)
	o.cachedSize += len(g.entry)
}

// dropCache drops old groups until at most size bytes are left. mu is held.
func (o *Outbox) dropCache(size int) {
	n := 0
	for ; n < len(o.cached) && o.cachedSize > size; n++ {
		g := o.cached[n]
		o.cachedSize -= len(g.entry)
		for _, sec := range g.sections {
			s := sec.stream
			s.recent[0] = nil
			s.recent = s.recent[1:]
		}
		o.cached[n] = nil
	}
	o.cached = o.cached[n:]
}

// recentAt returns the recent section that holds seq or follows it.
func (s *stream) recentAt(seq uint64) int {
	return sort.Search(len(s.recent), func(i int) bool { return s.recent[i].last() >= seq })
}
