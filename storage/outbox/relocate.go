package outbox

import "github.com/buffstreams/watermill-buffstreams/store"

// The bounds of what one step of a relocation writes and reads, and so of how long it delays appends.
const (
	relocateBytes   = 1 << 20
	relocateEntries = 1024
)

// spareSegments may hold nothing but settled messages before pending messages are copied to win back space.
const spareSegments = 4

// relocation copies the pending messages of one segment to the tail, so that messages which cannot be delivered do not
// hold the space of those that were delivered. The copies do not count until the source leaves the manifest, also not
// after a crash. The committer owns it.
type relocation struct {
	source     *segmentFile
	parts      map[extentKey]uint64 // the extents of source, as their places there
	next, last uint64               // the entries left to read
	tailCopies map[extentKey]*extent
	copies     []*extent // in the tail, and in segments that were the tail before
}

// startRelocation begins to relocate the segment that frees most, if the log takes more than twice what is pending.
func (o *Outbox) startRelocation() {
	o.mu.Lock()
	defer o.mu.Unlock()
	size := int64(o.cfg.SegmentBytes)
	if int64(len(o.index.segments))*size <= 2*o.index.bytes+(spareSegments+1)*size {
		return
	}
	var source *segmentFile
	for _, f := range o.index.segments {
		if f != o.log.tail && !f.unmovable && (source == nil || f.pendingBytes < source.pendingBytes) {
			source = f
		}
	}
	if source == nil {
		return
	}
	r := &relocation{source: source, parts: map[extentKey]uint64{}, next: source.last + 1, tailCopies: map[extentKey]*extent{}}
	for i, x := range source.extents {
		if x.pending > 0 {
			r.parts[extentKey{x.stream.id, x.origin}] = uint64(i)
			r.next, r.last = min(r.next, x.firstEntry), max(r.last, x.lastEntry)
		}
	}
	o.relocation = r
}

// relocate does one step of the relocation.
func (o *Outbox) relocate() error {
	r := o.relocation
	limit := min(relocateBytes, o.cfg.SegmentBytes/2)
	step := copyStep{entry: make([]byte, entryHeader, entryHeader+limit)}
	for n := 0; r.next <= r.last && len(step.entry) < limit && n < relocateEntries; n++ {
		if !o.copyPending(&step) {
			o.abandonRelocation()
			return nil
		}
		r.next++
	}
	if len(step.runs) > 0 {
		if err := o.writeCopies(&step); err != nil {
			return err
		}
	}
	if r.next <= r.last {
		return nil
	}
	o.relocation = nil
	o.attachCopies(r)
	return o.removeSettledSegments()
}

// abandonRelocation leaves a damaged segment where it is. Read reports the damage.
func (o *Outbox) abandonRelocation() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.relocation.source.unmovable = true
	o.relocation = nil
	o.reclaimable = true
}

// copyStep is an entry that collects copies.
type copyStep struct {
	entry []byte
	runs  []run
}

func (c *copyStep) add(r run, payload []byte) {
	r.bytes = cost(len(payload), int(r.count))
	c.entry = appendMessagesHeader(c.entry, r.extentKey, r.first, int(r.count), len(payload))
	c.entry = append(c.entry, payload...)
	c.runs = append(c.runs, r)
}

// copyPending copies the pending messages of the next entry. It returns false if that entry is damaged.
func (o *Outbox) copyPending(step *copyStep) bool {
	r := o.relocation
	buf, records, err := o.readEntry(r.source, r.next)
	if err != nil {
		return false
	}
	defer func() { _ = buf.Close() }()
	d := decoder{b: records}
	for len(d.b) > 0 {
		rec := d.record()
		if d.bad {
			return false
		}
		part, ok := r.parts[rec.extentKey()]
		if rec.kind != recordMessages || !ok {
			continue
		}
		key := extentKey{rec.stream, origin{segment: r.source.info.ID, part: part}}
		for _, p := range o.pendingRanges(&rec) {
			count := p.Last - p.First + 1
			step.add(run{extentKey: key, first: p.First, count: count}, slicePayload(rec.payload, p.First-rec.first, count))
		}
	}
	return true
}

// pendingRanges returns the parts of rec that are not settled.
func (o *Outbox) pendingRanges(rec *record) (ranges []store.Range) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.index.byID[rec.stream]
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

// slicePayload returns the part of a payload that holds count messages, after skip others.
func slicePayload(payload []byte, skip, count uint64) []byte {
	d := decoder{b: payload}
	for ; skip > 0; skip-- {
		d.bytes()
	}
	start := d.b
	for ; count > 0; count-- {
		d.bytes()
	}
	return start[:len(start)-len(d.b)]
}

// writeCopies makes the copies of a step durable.
func (o *Outbox) writeCopies(step *copyStep) error {
	entry := o.log.next()
	full, err := o.write(step.entry)
	if err != nil {
		return err
	}
	o.addCopies(step.runs, entry)
	if !full {
		return nil
	}
	o.relocation.tailCopies = map[extentKey]*extent{}
	return o.rotate()
}

// addCopies adds the extents of copies to the tail, without attaching them to their streams.
func (o *Outbox) addCopies(runs []run, entry uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range runs {
		s := o.index.byID[c.stream]
		if s == nil {
			continue
		}
		if x, created := o.log.tail.extend(o.relocation.tailCopies, s, entry, c); created {
			o.relocation.copies = append(o.relocation.copies, x)
		}
	}
}

// attachCopies lets the copies of a relocation count in the place of their originals.
func (o *Outbox) attachCopies(r *relocation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, x := range r.source.extents {
		if x.pending > 0 {
			x.stream.addBytes(-x.pendingBytes)
			x.stream.detach(x)
		}
	}
	for _, x := range r.copies {
		if o.index.byID[x.stream.id] == x.stream && x.stream.attach(x) {
			x.stream.addBytes(x.pendingBytes)
		}
	}
	o.reclaimable = true
}
