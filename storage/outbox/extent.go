package outbox

// extent is a run of one stream's messages in one segment, in order. Between first and last only settled messages may
// be missing. It is part of the index.
type extent struct {
	stream  *stream
	segment *segmentFile
	origin  origin

	first, last           uint64 // sequences
	firstEntry, lastEntry uint64 // the entries of the log that hold these
	count                 uint64 // messages present
	bytes                 int64  // their cost

	pending      uint64 // messages present and not settled
	pendingBytes int64  // their cost: bytes shared out evenly, and 0 when pending is
}

// origin tells apart the runs of one stream's messages in one segment. The zero value stands for messages where they
// were first written. Otherwise they are copies of extent number part of the segment with id segment.
type origin struct {
	segment, part uint64
}

// extentKey tells apart the extents of one segment.
type extentKey struct {
	stream uint64
	origin origin
}

// run is what one record adds to an extent.
type run struct {
	extentKey
	first, count uint64
	bytes        int64 // cost
}

// grow adds a record that lies behind all that x holds.
func (x *extent) grow(entry uint64, first, count uint64, bytes int64) {
	if x.count == 0 {
		x.first, x.firstEntry = first, entry
	}
	x.last, x.lastEntry = first+count-1, entry
	x.count += count
	x.bytes += bytes
}

// extend adds r, which is in the given entry, to the extent of f that it belongs to. known holds the extents that f had
// so far; extend adds a new one to it.
func (f *segmentFile) extend(known map[extentKey]*extent, s *stream, entry uint64, r run) (x *extent, created bool) {
	x, found := known[r.extentKey]
	if !found {
		x = &extent{stream: s, segment: f, origin: r.origin}
		known[r.extentKey] = x
		f.extents = append(f.extents, x)
	}
	x.grow(entry, r.first, r.count, r.bytes)
	return x, !found
}
