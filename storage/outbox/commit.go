package outbox

import (
	"runtime"
	"time"

	"github.com/buffstreams/watermill-buffstreams/hooks"
)

// saveEvery bounds the settled messages that can come back after a crash if no append saves that they are settled.
const saveEvery = 16 << 10

// unsaved says what was settled since that was last saved. Outbox.mu guards it.
type unsaved struct {
	streams  []*stream
	messages uint64
}

// add notes that messages of s were settled.
func (u *unsaved) add(s *stream, messages uint64) {
	u.messages += messages
	if !s.unsaved {
		s.unsaved = true
		u.streams = append(u.streams, s)
	}
}

func (u *unsaved) reset() {
	for _, s := range u.streams {
		s.unsaved = false
	}
	u.streams, u.messages = u.streams[:0], 0
}

// commitLoop is the committer, the only goroutine that writes to the disk after Open. It returns after a failed write,
// and when the outbox is closed.
func (o *Outbox) commitLoop() {
	for {
		closing := false
		select {
		case <-o.wake:
		case <-o.closing:
			closing = true // and no append follows
		}
		o.noteWriting(true)
		err := o.commitNext()
		if err == nil && closing {
			// Twice: if its newest commit rots, the meta store falls back to the one before.
			if err = o.saveStreams(); err == nil {
				err = o.saveStreams()
			}
		}
		o.noteWriting(false)
		if err != nil {
			_ = o.fail(err)
			return
		}
		if closing {
			return
		}
	}
}

// commitNext commits the group that has gathered, and does a bounded part of the work that reclaims space.
func (o *Outbox) commitNext() error {
	if g := o.takeGroup(); g != nil {
		if err := o.commit(g); err != nil {
			return err
		}
	}
	if err := o.renounce(); err != nil {
		return err
	}
	if err := o.savePlaces(); err != nil {
		return err
	}
	return o.reclaim()
}

// takeGroup returns the group to commit, or nil if there is none. It yields first for as long as that makes the group
// grow: the callers that the last commit woke are about to append again.
func (o *Outbox) takeGroup() *group {
	for gathered, tries := 0, 0; tries < 4; tries++ {
		n := o.gathered()
		if n == gathered {
			break
		}
		gathered = n
		runtime.Gosched()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	g := o.group
	if g == nil || len(g.entry) == entryHeader { // an append that was refused leaves it empty
		return nil
	}
	o.group = nil
	for _, s := range o.unsaved.streams {
		if s.unsaved {
			g.entry = appendSettledRecord(g.entry, s.id, s.settled.through)
		}
	}
	o.unsaved.reset()
	o.groupHint = min(len(g.entry)+len(g.entry)/4, 64<<10)
	o.sectionHint = min(len(g.sections), 1024)
	return g
}

// gathered returns the number of appends in the group that gathers them.
func (o *Outbox) gathered() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.group == nil {
		return 0
	}
	return o.group.appends
}

// commit makes g durable and readable, and wakes the callers of Append.
func (o *Outbox) commit(g *group) error {
	entry := o.log.next()
	began := clock(o.watchers.synced)
	full, err := o.write(g.entry)
	defer o.watchers.tellSynced(hooks.OutboxSynced{
		Outbox: o.cfg.Dir, Appends: g.appends, Bytes: len(g.entry), Took: since(began), Err: err,
	})
	if err != nil {
		g.err = o.fail(err)
		close(g.done)
		return err
	}
	o.publish(g, entry)
	close(g.done)
	if full {
		return o.rotate()
	}
	return nil
}

// write appends one entry to the log. full reports that the tail takes no more.
func (o *Outbox) write(entry []byte) (full bool, err error) {
	sealEntry(entry, o.log.next(), o.seed)
	full, err = o.log.append(entry)
	if err == nil {
		o.log.tail.last++
	}
	return full, err
}

// publish adds a durable group to the index and to the cache.
func (o *Outbox) publish(g *group, entry uint64) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range g.sections {
		sec := &g.sections[i]
		sec.payload = g.entry[sec.start:sec.end:sec.end]
		s := sec.stream
		s.durable = sec.first + sec.count
		s.growTail(o.log.tail, entry, sec)
		s.noteAge(sec.first, now)
		s.notify()
	}
	o.cache.add(g)
	for _, s := range g.defined {
		s.defined = true
	}
	if len(g.defined) > 0 && o.errLocked() == nil {
		close(o.newStreams)
		o.newStreams = make(chan struct{})
	}
}

// growTail adds a section to the extent of s in the tail.
func (s *stream) growTail(tail *segmentFile, entry uint64, sec *section) {
	x := s.tailExtent
	if x == nil || x.segment != tail {
		x = &extent{stream: s, segment: tail}
		s.tailExtent = x
		tail.extents = append(tail.extents, x)
	}
	if x.pending == 0 {
		s.extents = append(s.extents, x)
		tail.pendingExtents++
	}
	bytes := cost(sec.end-sec.start, int(sec.count))
	x.grow(entry, sec.first, sec.count, bytes)
	x.pending += sec.count
	x.pendingBytes += bytes
	tail.pendingBytes += bytes
}

// rotate saves what the full tail holds and starts the next segment.
func (o *Outbox) rotate() error {
	full := o.log.tail
	o.mu.Lock()
	summary := o.index.encodeSummary(full)
	o.mu.Unlock()
	if err := o.meta.set(keySummary(full.info.ID), summary); err != nil {
		return err
	}
	if err := o.saveStreams(); err != nil {
		return err
	}
	err := o.log.rotate()
	o.mu.Lock()
	o.index.segments[o.log.tail.info.ID] = o.log.tail
	o.reclaimable = true
	o.mu.Unlock()
	return err
}

// saveStreams saves the table of streams, which includes what is settled.
func (o *Outbox) saveStreams() error {
	o.mu.Lock()
	table := o.index.encodeStreams(o.log.tail.last)
	o.unsaved.reset()
	o.mu.Unlock()
	return o.meta.set(keyStreams, table)
}
