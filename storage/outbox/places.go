package outbox

import (
	"context"
	"encoding/binary"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// keyPlaces is the key of the places in the meta store.
const keyPlaces = "outbox-places"

var _ store.Placer = (*Outbox)(nil)

// places are where the streams of topics are. Outbox.mu guards it.
type places struct {
	of     map[uint64]store.Place // by the stream's number
	saving *placing               // that the committer has to save; nil: none is
}

// placing is a save of places.
type placing struct {
	done chan struct{} // closed once err is final
	err  error
}

// Place returns where stream k is; zero: nowhere yet, or there is no stream k.
func (o *Outbox) Place(k store.Key) store.Place {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s := o.index.streams[k]; s != nil {
		return o.places.of[s.id]
	}
	return store.Place{}
}

// SetPlace notes where stream k is, and returns once that is durable. Calls share a write.
func (o *Outbox) SetPlace(ctx context.Context, k store.Key, p store.Place) error {
	saving, err := o.place(k, p)
	if err != nil {
		return err
	}
	o.poke()
	select {
	case <-saving.done:
		return saving.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *Outbox) place(k store.Key, p store.Place) (*placing, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s, err := o.streamLocked(k)
	if err != nil {
		return nil, err
	}
	o.places.of[s.id] = p
	if o.places.saving == nil {
		o.places.saving = &placing{done: make(chan struct{})}
	}
	return o.places.saving, nil
}

// savePlaces saves the places, if they have changed. The committer calls it.
func (o *Outbox) savePlaces() error {
	o.mu.Lock()
	saving := o.places.saving
	if saving == nil {
		o.mu.Unlock()
		return nil
	}
	o.places.saving = nil
	b := o.encodePlacesLocked()
	o.mu.Unlock()
	err := o.meta.set(keyPlaces, b)
	if err != nil {
		saving.err = o.fail(err)
	}
	close(saving.done)
	return err
}

// encodePlacesLocked leaves out those of streams that were forgotten.
func (o *Outbox) encodePlacesLocked() []byte {
	b := []byte{stateVersion}
	for id, p := range o.places.of {
		if o.index.byID[id] == nil {
			delete(o.places.of, id)
			continue
		}
		b = binary.AppendUvarint(b, id)
		b = appendString(b, p.Address)
		b = binary.AppendUvarint(b, p.Tenure)
	}
	return b
}

// loadPlaces loads the places. An outbox that only older code has opened has none.
func (o *Outbox) loadPlaces() error {
	o.places.of = map[uint64]store.Place{}
	b, err := o.meta.get(keyPlaces)
	if err != nil || b == nil {
		return err
	}
	if len(b) == 0 || b[0] != stateVersion {
		return &store.CorruptError{Reason: "places"}
	}
	d := decoder{b: b[1:]}
	for len(d.b) > 0 && !d.bad {
		id := d.uvarint()
		o.places.of[id] = store.Place{Address: d.string(), Tenure: d.uvarint()}
	}
	if d.bad {
		return &store.CorruptError{Reason: "places"}
	}
	return nil
}

// endPlacingLocked ends a save that will not happen. The caller must hold mu.
func (o *Outbox) endPlacingLocked(err error) {
	if s := o.places.saving; s != nil {
		o.places.saving = nil
		s.err = err
		close(s.done)
	}
}
