package outbox

// reclaim gives back disk space that only settled messages take, one bounded step at a time.
func (o *Outbox) reclaim() error {
	o.mu.Lock()
	save, due := o.unsaved.messages >= saveEvery, o.reclaimable
	o.reclaimable = false
	o.mu.Unlock()
	if due {
		if err := o.removeSettledSegments(); err != nil {
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
		o.poke() // there may be more to copy
	}
	if save {
		return o.saveStreams()
	}
	return nil
}

// removeSettledSegments removes the segments in which nothing is pending. It saves what is settled first: from then on,
// a pending message that no segment holds can only be damage.
func (o *Outbox) removeSettledSegments() error {
	files := o.settledSegments()
	if len(files) == 0 {
		return nil
	}
	if err := o.saveStreams(); err != nil {
		return err
	}
	if err := o.log.remove(files); err != nil {
		return err
	}
	o.mu.Lock()
	for _, f := range files {
		delete(o.index.segments, f.info.ID)
		if o.relocation != nil && o.relocation.source == f {
			o.relocation = nil
		}
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

func (o *Outbox) settledSegments() (files []*segmentFile) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.index.segments {
		if f.pendingExtents == 0 && f != o.log.tail {
			files = append(files, f)
		}
	}
	return files
}
