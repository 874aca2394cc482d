package outbox

// upkeep gives back what is settled, a piece at a time.
func (o *Outbox) upkeep() error {
	o.mu.Lock()
	save := o.unsaved >= saveEvery
	tidy := o.tidy
	o.tidy = false
	o.mu.Unlock()
	if tidy {
		if err := o.removeDead(); err != nil {
			return err
		}
		if o.relocation == nil {
			o.startRelocation()
		}
	}
	if o.relocation != nil {
		if err := o.relocate(); err != nil {
			return err
		}
		o.poke() // there may be more of it
	}
	if save {
		return o.saveStreams()
	}
	return nil
}

// removeDead gives back the segments in which nothing is pending. What is
// settled is saved first: from then on a pending message without an extent can
// only be damage.
func (o *Outbox) removeDead() error {
	gone := map[uint64]bool{}
	var files []*segmentFile
	o.mu.Lock()
	for id, f := range o.segments {
		if f.live == 0 && f != o.log.tail {
			gone[id] = true
			files = append(files, f)
		}
	}
	o.mu.Unlock()
	if len(files) == 0 {
		return nil
	}
	if r := o.relocation; r != nil && gone[r.source.info.ID] {
		o.relocation = nil
	}
	if err := o.saveStreams(); err != nil {
		return err
	}
	if err := o.log.forget(gone); err != nil {
		return err
	}
	o.mu.Lock()
	for id := range gone {
		delete(o.segments, id)
	}
	o.mu.Unlock()
	for _, f := range files {
		o.log.discard(f)
		if err := o.meta.remove(keySummary(f.info.ID)); err != nil {
			return err
		}
	}
	return nil
}
