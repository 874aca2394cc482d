package outbox

import (
	"cmp"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// maxMarks bounds the marks of a stream. When there are more, about every second one goes, such that the others are
// spread evenly over the time that they span.
const maxMarks = 256

// mark says that the messages of a stream from seq on, up to the next mark, were stored at a time, or a little later.
type mark struct {
	seq uint64
	at  time.Time
}

// noteAge says that messages from seq on were stored at a time.
func (s *stream) noteAge(seq uint64, at time.Time) {
	if n := len(s.marks); n > 0 && at.Sub(s.marks[n-1].at) < s.spacing {
		return
	}
	if s.marks = append(s.marks, mark{seq, at}); len(s.marks) < maxMarks {
		return
	}
	s.spacing = at.Sub(s.marks[0].at) / (maxMarks / 2)
	kept := s.marks[:1]
	for _, m := range s.marks[1:] {
		if m.at.Sub(kept[len(kept)-1].at) >= s.spacing {
			kept = append(kept, m)
		}
	}
	s.marks = kept
}

// forgetAges forgets the marks that are needed no longer.
func (s *stream) forgetAges() {
	first := s.settled.through + 1
	if i := s.markOf(first); i > 0 {
		s.marks = slices.Delete(s.marks, 0, i)
	}
	if first >= s.next {
		s.marks, s.spacing = nil, 0
	}
}

// markOf returns the index of the mark for message seq, or -1.
func (s *stream) markOf(seq uint64) int {
	return sort.Search(len(s.marks), func(i int) bool { return s.marks[i].seq > seq }) - 1
}

// oldest is when the oldest pending message was stored; opened, if that was before the outbox was opened.
func (s *stream) oldest(opened time.Time) time.Time {
	if i := s.markOf(s.settled.through + 1); i >= 0 {
		return s.marks[i].at
	}
	return opened
}

// Stats describes the outbox. It does not read the disk. Once the outbox is closed or has failed, it returns the last
// state.
func (o *Outbox) Stats() store.OutboxStats {
	s := o.totals()
	reasons, _ := o.notReady()
	for _, reason := range reasons {
		s.NotReady = append(s.NotReady, reason.Error())
	}
	for _, k := range o.streamStats() {
		i, found := slices.BinarySearchFunc(s.Destinations, k.key.Destination,
			func(d store.DestinationStats, name string) int { return strings.Compare(d.Name, name) })
		if !found {
			s.Destinations = slices.Insert(s.Destinations, i, store.DestinationStats{Name: k.key.Destination})
		}
		d := &s.Destinations[i]
		d.Topics = append(d.Topics, k.OutboxTopicStats)
		d.Pending += k.Pending
		d.Bytes += k.Bytes
		d.OldestUnsettled = earlier(d.OldestUnsettled, k.OldestUnsettled)
		s.Pending += k.Pending
		s.OldestUnsettled = earlier(s.OldestUnsettled, k.OldestUnsettled)
	}
	return s
}

func (o *Outbox) totals() store.OutboxStats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := store.OutboxStats{
		Name: o.cfg.Dir, Delivering: len(o.delivery) > 0, Bytes: o.index.bytes, QuotaBytes: o.cfg.QuotaBytes,
	}
	s.Closed = o.closed
	s.WritingSince = o.writingSince()
	if err := o.errLocked(); err != nil {
		s.Err = err.Error()
	}
	return s
}

type keyStats struct {
	key store.Key
	store.OutboxTopicStats
}

// streamStats returns what the streams hold, in the order of destinations and topics.
func (o *Outbox) streamStats() []keyStats {
	o.mu.Lock()
	all := make([]keyStats, 0, len(o.index.byID))
	for _, s := range o.index.byID {
		k := keyStats{s.key, store.OutboxTopicStats{Name: s.key.Topic, Pending: s.pending(), Bytes: s.bytes}}
		if k.Pending > 0 {
			k.OldestUnsettled = s.oldest(o.opened)
		}
		all = append(all, k)
	}
	o.mu.Unlock()
	slices.SortFunc(all, func(a, b keyStats) int {
		return cmp.Or(strings.Compare(a.key.Destination, b.key.Destination), strings.Compare(a.key.Topic, b.key.Topic))
	})
	return all
}

// earlier is the earlier of two times that are not zero.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
