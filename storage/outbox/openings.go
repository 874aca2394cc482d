package outbox

import (
	"encoding/binary"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// keyOpenings is the key of the openings in the meta store.
const keyOpenings = "outbox-openings"

// maxOpenings is how many openings are told apart for each stream. Of earlier ones it is known less.
const maxOpenings = 32

// noteOpenings notes, and saves, where each stream stands at this opening. It is called once, by Open, when all that an
// earlier process left is known.
func (o *Outbox) noteOpenings() error {
	b, err := o.meta.get(keyOpenings)
	if err != nil {
		return err
	}
	saved, last, ok := decodeOpenings(b)
	if !ok {
		return &store.CorruptError{Reason: "openings"}
	}
	for _, s := range o.index.byID {
		s.openings = saved[s.id]
		s.opened(o.identity.epoch, last+1 == o.identity.epoch)
	}
	return o.meta.set(keyOpenings, o.encodeOpenings())
}

// opened adds an opening of the outbox to those that the stream has seen. With known false others may have been missed,
// as with earlier code: then all that is known is that none of them had more than there is now.
func (s *stream) opened(epoch uint64, known bool) {
	n := len(s.openings)
	switch {
	case !known:
		s.openings = []store.Opening{{Next: s.next}}
	case n == 0 || s.openings[n-1].Next != s.next:
		s.openings = append(s.openings, store.Opening{Epoch: epoch, Next: s.next})
	}
	if len(s.openings) > maxOpenings {
		first := s.openings[0].Epoch
		s.openings = s.openings[1:]
		s.openings[0].Epoch = first // it had no more than the next one
	}
}

func (o *Outbox) encodeOpenings() []byte {
	b := binary.AppendUvarint([]byte{stateVersion}, o.identity.epoch)
	for _, s := range o.index.byID {
		b = binary.AppendUvarint(b, s.id)
		b = binary.AppendUvarint(b, uint64(len(s.openings)))
		for _, x := range s.openings {
			b = binary.AppendUvarint(binary.AppendUvarint(b, x.Epoch), x.Next)
		}
	}
	return b
}

// decodeOpenings returns the openings by stream, and the epoch of the last one that was noted.
func decodeOpenings(b []byte) (saved map[uint64][]store.Opening, last uint64, ok bool) {
	if b == nil {
		return nil, 0, true
	}
	if len(b) == 0 || b[0] != stateVersion {
		return nil, 0, false
	}
	d := decoder{b: b[1:]}
	last, saved = d.uvarint(), map[uint64][]store.Opening{}
	for len(d.b) > 0 && !d.bad {
		id := d.uvarint()
		for n := d.uvarint(); n > 0 && !d.bad; n-- {
			saved[id] = append(saved[id], store.Opening{Epoch: d.uvarint(), Next: d.uvarint()})
		}
	}
	return saved, last, !d.bad
}
