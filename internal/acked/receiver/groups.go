package receiver

import (
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// With a dedupe store, what a consumer group has settled survives, too, while another group has not: after a restart
// its publisher sends the message again, and only the other group gets it.

var _ dispatch.GroupSource = (*stream)(nil)

// restoreGroups takes over what groups had settled in an earlier life.
func (s *stream) restoreGroups(stored map[string][]store.Range) {
	if len(stored) == 0 || s.committer == nil {
		return
	}
	s.knew = make(map[string]session.Watermark, len(stored))
	s.groups = make(map[string]*session.Watermark, len(stored))
	for group, ranges := range stored {
		var w session.Watermark
		for _, r := range ranges {
			w.Add(r.First, r.Last)
		}
		now := w.Clone()
		s.knew[group], s.groups[group] = w, &now
	}
}

// Remembers implements dispatch.GroupSource.
func (s *stream) Remembers() bool { return len(s.knew) > 0 }

// Knew implements dispatch.GroupSource.
func (s *stream) Knew(group string, seq uint64) bool {
	w, ok := s.knew[group]
	return ok && w.Has(seq)
}

// SettledBy implements dispatch.GroupSource: it blocks until that is durable.
func (s *stream) SettledBy(group string, first, last uint64) {
	if s.committer == nil || s.isReleased() {
		return
	}
	s.noteGroup(group, store.Range{First: first, Last: last})
	_ = s.committer.commit(s) // it has logged the error; the group gets the messages again
}

func (s *stream) noteGroup(group string, r store.Range) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.groups[group]
	if w == nil {
		if s.groups == nil {
			s.groups = map[string]*session.Watermark{}
		}
		w = &session.Watermark{}
		s.groups[group] = w
	}
	w.Add(r.First, r.Last)
}

// groupsLocked returns what each group has settled beyond what all have. It forgets what all have settled.
func (s *stream) groupsLocked(settled []store.Range) (groups map[string][]store.Range) {
	next := uint64(1)
	if len(settled) > 0 && settled[0].First <= 1 {
		next = settled[0].Last + 1
	}
	for group, w := range s.groups {
		w.Add(1, next-1)
		pairs := w.AppendPairs(nil, next)
		if len(pairs) == 0 {
			delete(s.groups, group)
			continue
		}
		if groups == nil {
			groups = map[string][]store.Range{}
		}
		for i := 0; i < len(pairs); i += 2 {
			groups[group] = append(groups[group], store.Range{First: pairs[i], Last: pairs[i+1]})
		}
	}
	return groups
}
