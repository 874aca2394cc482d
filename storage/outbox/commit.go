package outbox

import (
	"fmt"
	"runtime"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// saveEvery is how many settled messages may come back after a crash although
// nothing was appended meanwhile.
const saveEvery = 16 << 10

// run is the committer: the only goroutine that writes.
func (o *Outbox) run() {
	defer o.wg.Done()
	for {
		closing := false
		select {
		case <-o.wake:
		case <-o.closing:
			closing = true // and nothing is added any more
		}
		err := o.turn()
		if err == nil && closing {
			// Twice: if the last commit of the meta store rots, it falls back to the one before.
			if err = o.saveStreams(); err == nil {
				err = o.saveStreams()
			}
		}
		if err != nil {
			o.fail(err)
		}
		if err != nil || closing {
			return
		}
	}
}

// turn commits what has gathered and does a bounded piece of what else is due.
func (o *Outbox) turn() error {
	if g := o.take(); g != nil {
		if err := o.commit(g); err != nil {
			return err
		}
	}
	return o.upkeep()
}

// take waits, by yielding, as long as that makes the group grow: those whom the
// last commit woke are about to append again. It returns nil if there is none.
func (o *Outbox) take() *group {
	for gathered, tries := 0, 0; tries < 4; tries++ {
		o.mu.Lock()
		n := 0
		if o.group != nil {
			n = o.group.appends
		}
		o.mu.Unlock()
		if n == gathered {
			break
		}
		gathered = n
		runtime.Gosched()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	g := o.group
	if g == nil || len(g.entry) == entryHeader {
		return nil // an append that found no room opened it
	}
	o.group = nil
	for _, s := range o.dirty {
		if s.dirty && s.defined {
			g.entry = appendSettledRecord(g.entry, s.id, s.settled.through)
		}
		s.dirty = false
	}
	o.dirty, o.unsaved = o.dirty[:0], 0
	o.groupHint = min(len(g.entry)+len(g.entry)/4, 64<<10)
	o.sectionHint = min(len(g.sections), 1024)
	return g
}

// commit makes g durable, publishes it, and wakes those who appended to it.
func (o *Outbox) commit(g *group) error {
	index := o.log.next()
	full, err := o.write(g.entry)
	if err != nil {
		g.err = o.fail(err)
		close(g.done)
		return err
	}
	o.mu.Lock()
	o.publish(g, index)
	o.mu.Unlock()
	close(g.done)
	if full {
		return o.rotate()
	}
	return nil
}

// write appends one entry to the log.
func (o *Outbox) write(entry []byte) (full bool, err error) {
	sealEntry(entry, o.log.next(), o.seed)
	full, err = o.log.append(entry)
	if err == nil {
		o.log.tail.last++
	}
	return full, err
}

// publish enters a durable group into the index. mu is held.
func (o *Outbox) publish(g *group, index uint64) {
	for i := range g.sections {
		sec := &g.sections[i]
		s := sec.stream
		s.durable = sec.first + sec.count
		o.growHome(s, index, sec)
		sec.payload = g.entry[sec.start:sec.end:sec.end]
		s.wakeWaiters()
	}
	o.cache(g)
	for _, s := range g.defined {
		s.defined = true
	}
	if len(g.defined) > 0 && o.usable() == nil {
		close(o.newStreams)
		o.newStreams = make(chan struct{})
	}
}

// growHome adds a section to the extent of s in the tail.
func (o *Outbox) growHome(s *stream, index uint64, sec *section) {
	x := s.home
	if x == nil || x.segment != o.log.tail {
		x = &extent{stream: s, segment: o.log.tail}
		s.home = x
		x.segment.extents = append(x.segment.extents, x)
	}
	if x.live == 0 {
		s.extents = append(s.extents, x)
		x.segment.live++
	}
	size := cost(sec.end-sec.start, int(sec.count))
	x.grow(index, sec.first, sec.count, size)
	x.live += sec.count
	x.bytes += size
	x.segment.bytes += size
}

// rotate saves what the full tail holds and starts the next segment.
func (o *Outbox) rotate() error {
	old := o.log.tail
	o.mu.Lock()
	summary := o.encodeSummary(old)
	o.mu.Unlock()
	if err := o.meta.set(keySummary(old.info.ID), summary); err != nil {
		return err
	}
	if err := o.saveStreams(); err != nil {
		return err
	}
	err := o.log.rotate()
	o.mu.Lock()
	o.segments[o.log.tail.info.ID] = o.log.tail
	o.tidy = true
	o.mu.Unlock()
	return err
}

// saveStreams saves the table of streams, settled ranges included.
func (o *Outbox) saveStreams() error {
	o.mu.Lock()
	table := o.encodeStreams(o.log.tail.last)
	for _, s := range o.dirty {
		s.dirty = false
	}
	o.dirty, o.unsaved = o.dirty[:0], 0
	o.mu.Unlock()
	return o.meta.set(keyStreams, table)
}

// fail stops the outbox for good and returns what everybody is told from now on.
func (o *Outbox) fail(cause error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failure != nil {
		return o.failure
	}
	o.failure = fmt.Errorf("%w: %w", store.ErrFailed, cause)
	if g := o.group; g != nil {
		o.group = nil
		g.err = o.failure
		close(g.done)
	}
	o.releaseWaiters()
	return o.failure
}
