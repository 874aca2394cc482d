package outbox

import (
	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// What one step of a relocation writes and reads at most, and so how long it
// delays appends.
const (
	relocateBytes   = 1 << 20
	relocateEntries = 1024
)

// spareSegments may hold nothing but settled messages before space is won back
// by moving what is pending.
const spareSegments = 4

// relocation copies what is pending in one segment to the tail, so that
// messages which cannot be delivered do not hold the space of those that were.
// Until the source leaves the manifest the copies do not count, also not after
// a crash.
type relocation struct {
	source *segmentFile
	parts  map[extentKey]uint64 // the extents of source, by their place there
	next   uint64               // entry to be read next
	last   uint64
	moved  map[extentKey]*extent // in the tail; replaced when that rotates
	done   []*extent             // all of them
}

// startRelocation picks the segment that frees most, if the log takes more than
// twice what is pending.
func (o *Outbox) startRelocation() {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := int64(o.cfg.SegmentBytes)
	if int64(len(o.segments))*size <= 2*o.bytes+(spareSegments+1)*size {
		return
	}
	var source *segmentFile
	for _, f := range o.segments {
		if f != o.log.tail && !f.unmovable && (source == nil || f.bytes < source.bytes) {
			source = f
		}
	}
	if source == nil {
		return
	}
	r := &relocation{source: source, parts: map[extentKey]uint64{}, next: source.last + 1, moved: map[extentKey]*extent{}}
	for i, x := range source.extents {
		if x.live > 0 {
			r.parts[extentKey{x.stream.id, x.from}] = uint64(i)
			r.next, r.last = min(r.next, x.lo), max(r.last, x.hi)
		}
	}
	o.relocation = r
}

// relocate does one step.
func (o *Outbox) relocate() error {
	r := o.relocation
	limit := min(relocateBytes, o.cfg.SegmentBytes/2)
	entry := make([]byte, entryHeader, entryHeader+limit)
	var copied []run
	for n := 0; r.next <= r.last && len(entry) < limit && n < relocateEntries; n++ {
		var ok bool
		if entry, copied, ok = o.copyPending(entry, copied); !ok {
			o.mu.Lock()
			r.source.unmovable = true // readers will report it
			o.tidy = true
			o.mu.Unlock()
			o.relocation = nil
			return nil
		}
		r.next++
	}
	if len(copied) > 0 {
		if err := o.writeCopies(entry, copied); err != nil {
			return err
		}
	}
	if r.next <= r.last {
		return nil
	}
	o.relocation = nil
	o.switchOver(r)
	return o.removeDead()
}

// copyPending appends the pending messages of entry r.next. It fails if that
// entry is damaged.
func (o *Outbox) copyPending(entry []byte, copied []run) ([]byte, []run, bool) {
	r := o.relocation
	buf, records, err := o.readEntry(r.source, r.next)
	if err != nil {
		return entry, copied, false
	}
	defer buf.Close()
	d := decoder{b: records}
	for len(d.b) > 0 {
		rec := d.record()
		if d.bad {
			return entry, copied, false
		}
		part, ok := r.parts[extentKey{rec.stream, rec.from}]
		if rec.kind != recordMessages || !ok {
			continue
		}
		from := origin{segment: r.source.info.ID, part: part}
		for _, r := range o.pendingRanges(&rec) {
			payload := slicePayload(rec.payload, r.First-rec.first, r.Last-r.First+1)
			c := run{stream: rec.stream, from: from, first: r.First, count: r.Last - r.First + 1}
			c.size = cost(len(payload), int(c.count))
			entry = appendMessagesHeader(entry, c.stream, c.from, c.first, int(c.count), len(payload))
			entry = append(entry, payload...)
			copied = append(copied, c)
		}
	}
	return entry, copied, true
}

// pendingRanges returns the parts of rec that are not settled.
func (o *Outbox) pendingRanges(rec *record) (ranges []store.Range) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.byID[rec.stream]
	if s == nil {
		return nil
	}
	for seq := s.settled.next(rec.first); seq <= rec.last(); {
		end := s.settled.limit(seq, rec.last()+1)
		ranges = append(ranges, store.Range{First: seq, Last: end - 1})
		seq = s.settled.next(end)
	}
	return ranges
}

// slicePayload returns count messages of a payload, after skip others.
func slicePayload(payload []byte, skip, count uint64) []byte {
	d := decoder{b: payload}
	for ; skip > 0; skip-- {
		d.bytes()
	}
	rest := d.b
	for ; count > 0; count-- {
		d.bytes()
	}
	return rest[:len(rest)-len(d.b)]
}

// writeCopies makes a step's copies durable.
func (o *Outbox) writeCopies(entry []byte, copied []run) error {
	r, index := o.relocation, o.log.next()
	full, err := o.write(entry)
	if err != nil {
		return err
	}
	o.mu.Lock()
	tail := o.log.tail
	for i := range copied {
		c := copied[i]
		s := o.byID[c.stream]
		if s == nil {
			continue
		}
		known := len(tail.extents)
		x := tail.extend(r.moved, s, index, c)
		if len(tail.extents) > known {
			r.done = append(r.done, x)
		}
	}
	o.mu.Unlock()
	if !full {
		return nil
	}
	r.moved = map[extentKey]*extent{}
	return o.rotate()
}

// switchOver lets the copies count in the place of their originals.
func (o *Outbox) switchOver(r *relocation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range r.source.extents {
		if x.live > 0 {
			x.stream.addBytes(-x.bytes)
			x.stream.detach(x)
		}
	}
	for _, x := range r.done {
		if o.byID[x.stream.id] == x.stream && x.stream.attach(x) {
			x.stream.addBytes(x.bytes)
		}
	}
	o.tidy = true
}

// readEntry returns the records of an entry, valid until the buffer is closed.
func (o *Outbox) readEntry(f *segmentFile, index uint64) (*types.PooledBuffer, []byte, error) {
	buf, err := f.handle.read(index)
	if err != nil {
		return nil, nil, err
	}
	records, err := openEntryAt(buf.Bs, index, o.seed)
	if err != nil {
		_ = buf.Close()
		return nil, nil, err
	}
	return buf, records, nil
}
