package outbox

import (
	"crypto/rand"
	"encoding/binary"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// maxIncarnations is how many openings of itself an outbox remembers. A receiver that was last heard from before these
// is taken for one that was heard from by a copy.
const maxIncarnations = 256

// lineage is who the outbox is for receivers, and its openings since it is that. Outbox.mu guards it.
type lineage struct {
	id, secret   [16]byte
	incarnations []store.Incarnation // the newest last
}

// Lineage returns the openings of the outbox under its present id, of which the last is the present one. The result
// must not be modified.
func (o *Outbox) Lineage() []store.Incarnation {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lineage.incarnations
}

// begin adds an opening.
func (l *lineage) begin(epoch uint64) {
	own := slices.DeleteFunc(l.incarnations, func(i store.Incarnation) bool {
		return i.Epoch >= epoch // an Open that did not succeed
	})
	i := store.Incarnation{Epoch: epoch}
	_, _ = rand.Read(i.ID[:]) // it never returns an error: the program ends instead
	own = append(own, i)
	l.incarnations = own[max(0, len(own)-maxIncarnations):]
}

func (l *lineage) encode() []byte {
	b := append([]byte{stateVersion}, l.id[:]...)
	b = append(b, l.secret[:]...)
	for _, i := range l.incarnations {
		b = binary.BigEndian.AppendUint64(b, i.Epoch)
		b = append(b, i.ID[:]...)
	}
	return b
}

func decodeLineage(b []byte) (l lineage, ok bool) {
	const head, each = 1 + 16 + 16, 8 + 16
	if len(b) < head || b[0] != stateVersion || (len(b)-head)%each != 0 {
		return l, false
	}
	copy(l.id[:], b[1:])
	copy(l.secret[:], b[17:])
	for b = b[head:]; len(b) > 0; b = b[each:] {
		l.incarnations = append(l.incarnations, store.Incarnation{
			Epoch: binary.BigEndian.Uint64(b), ID: [16]byte(b[8:each]),
		})
	}
	return l, true
}

// loadLineage loads the lineage. An outbox that only older code has opened has none yet.
func (o *Outbox) loadLineage() error {
	b, err := o.meta.get(keyLineage)
	if err != nil {
		return err
	}
	o.lineage = lineage{id: o.identity.id, secret: o.identity.secret}
	if b == nil && !o.identity.renounced {
		return nil
	}
	var ok bool
	if o.lineage, ok = decodeLineage(b); !ok {
		return &store.CorruptError{Reason: "lineage"}
	}
	return nil
}

// saveLineage saves a lineage, and whose log this is. Older code, which would go on with the id that the outbox has
// given up, cannot open it from then on.
func (o *Outbox) saveLineage(l lineage) error {
	if err := o.meta.set(keyLineage, l.encode()); err != nil {
		return err
	}
	o.identity.renounced = l.id != o.identity.id
	return o.meta.set(keyIdentity, o.identity.encode())
}

// Renounce gives the outbox a new id and secret, and returns once that is durable. A receiver that knows the messages
// of another outbox by the old id takes none of this one's for those. Messages under way may be delivered twice.
// Renounce returns false, and does nothing, if the id was drawn since Open: no other outbox can have it.
func (o *Outbox) Renounce() (renounced bool, err error) {
	r, err := o.requestRenunciation()
	if r == nil {
		return false, err
	}
	o.poke()
	<-r.done
	return r.err == nil, r.err
}

// renunciation is a new lineage that the committer has to save.
type renunciation struct {
	lineage lineage
	done    chan struct{} // closed once err is final
	err     error
}

// requestRenunciation returns the renunciation to wait for, or nil if there is nothing to give up.
func (o *Outbox) requestRenunciation() (*renunciation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.errLocked(); err != nil || o.drawn {
		return nil, err
	}
	if o.renunciation == nil {
		fresh := newIdentity()
		l := lineage{id: fresh.id, secret: fresh.secret}
		l.begin(o.identity.epoch)
		o.renunciation = &renunciation{lineage: l, done: make(chan struct{})}
	}
	return o.renunciation, nil
}

// renounce saves the new lineage, if there is to be one. The committer calls it.
func (o *Outbox) renounce() error {
	o.mu.Lock()
	r := o.renunciation
	o.mu.Unlock()
	if r == nil {
		return nil
	}
	if err := o.saveLineage(r.lineage); err != nil {
		return err // fail tells the callers
	}
	o.mu.Lock()
	o.lineage, o.drawn, o.renunciation = r.lineage, true, nil
	o.mu.Unlock()
	close(r.done)
	return nil
}
