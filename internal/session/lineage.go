package session

import (
	"fmt"
	"slices"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Incarnation is one opening of a sender's durable state: see store.Outbox.
type Incarnation = store.Incarnation

// incarnation is what the sender tells in an Open of who it is now.
func (id *Identity) incarnation() []byte {
	if len(id.Lineage) == 0 {
		return nil
	}
	return id.Lineage[len(id.Lineage)-1].ID[:]
}

// owns tells whether an incarnation is one of this identity's. An ID of zeros stands for a sender that told none.
func (id *Identity) owns(last Incarnation) bool {
	if last.ID != [16]byte{} {
		return slices.ContainsFunc(id.Lineage, func(own Incarnation) bool { return own.ID == last.ID })
	}
	// It was opened by code that knew no incarnations, unless it is known what it was opened as.
	return last.Epoch <= id.Epoch && !slices.ContainsFunc(id.Lineage, func(own Incarnation) bool { return own.Epoch == last.Epoch })
}

// checkLineage returns a refusal of the stream at this side if the receiver has last heard of it from a stranger with
// this identity: what the receiver has of the stream is not, or not only, what this side sent.
func (id *Identity) checkLineage(f *wire.Opened) *PeerError {
	last := IncarnationOf(f.LastEpoch, f.LastIncarnation)
	if len(id.Lineage) == 0 || last.Epoch == 0 || id.owns(last) {
		return nil
	}
	return NewPeerError(codeCopied, fmt.Sprintf("epoch %d, incarnation %x", last.Epoch, last.ID))
}

// IncarnationOf returns an incarnation as a frame has it.
func IncarnationOf(epoch uint64, id []byte) Incarnation {
	i := Incarnation{Epoch: epoch}
	if len(id) == len(i.ID) {
		i.ID = [16]byte(id)
	}
	return i
}
