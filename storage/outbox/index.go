package outbox

import (
	"cmp"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// index says which streams there are, and where the log holds their pending messages. Outbox.mu guards it and all that
// it leads to: streams, destinations, extents, and the extents and sums of each segment.
type index struct {
	streams      map[store.Key]*stream
	byID         map[uint64]*stream
	nextStream   uint64 // the number of the next new stream
	destinations map[string]*destination
	segments     map[uint64]*segmentFile // by id
	bytes        int64                   // cost of all pending messages
}

// destination sums up the streams to one address, or of one topic.
type destination struct {
	name    string
	streams int
	bytes   int64 // cost of their pending messages
	refused int64 // cost of the last append, if there was no room for it; 0: there was, or it exceeds the quota alone
}

func newIndex() *index {
	return &index{
		streams: map[store.Key]*stream{}, byID: map[uint64]*stream{}, nextStream: 1,
		destinations: map[string]*destination{}, segments: map[uint64]*segmentFile{},
	}
}

func (ix *index) addStream(id uint64, k store.Key) *stream {
	d := ix.destinations[k.Account()]
	if d == nil {
		d = &destination{name: k.Account()}
		ix.destinations[d.name] = d
	}
	d.streams++
	s := &stream{id: id, key: k, index: ix, destination: d, next: 1, durable: 1, handed: 1, openings: []store.Opening{}}
	ix.streams[k], ix.byID[id] = s, s
	ix.nextStream = max(ix.nextStream, id+1)
	return s
}

// removeStream removes a stream that has nothing pending.
func (ix *index) removeStream(s *stream) {
	delete(ix.byID, s.id)
	if ix.streams[s.key] == s {
		delete(ix.streams, s.key)
	}
	if s.destination.streams--; s.destination.streams == 0 {
		delete(ix.destinations, s.destination.name)
	}
}

// attachAll attaches the extents of all segments to their streams, except copies whose original is still there: their
// relocation did not end. It drops those copies, and returns the segments that had some.
func (ix *index) attachAll() (changed []*segmentFile) {
	for _, f := range ix.segments {
		n := len(f.extents)
		f.extents = slices.DeleteFunc(f.extents, func(x *extent) bool {
			_, unfinished := ix.segments[x.origin.segment]
			return unfinished || ix.byID[x.stream.id] != x.stream
		})
		for _, x := range f.extents {
			if x.stream.attach(x) {
				x.stream.addBytes(x.pendingBytes)
			}
		}
		if len(f.extents) < n {
			changed = append(changed, f)
		}
	}
	return changed
}

// Streams returns all streams in the order of their numbers, including those that have nothing pending. After Close or
// a failure it returns the last state.
func (o *Outbox) Streams() []store.Stream {
	o.mu.Lock()
	all := make([]store.Stream, 0, len(o.index.byID))
	for _, s := range o.index.byID {
		all = append(all, store.Stream{
			Key: s.key, ID: s.id, First: s.settled.through + 1, Next: s.next, Sent: s.handed,
			Openings: s.openings, Pending: s.pending(), Bytes: s.bytes,
		})
	}
	o.mu.Unlock()
	slices.SortFunc(all, func(a, b store.Stream) int { return cmp.Compare(a.ID, b.ID) })
	return all
}
