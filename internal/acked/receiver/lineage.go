package receiver

import (
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// A sender whose durable state was copied or restored has the identity and the sequences of another, for other
// messages. The Receiver cannot tell them apart by epochs: both count on from the same one. So it remembers which
// incarnation has last changed what is known of a stream, and says so when the stream is opened. A sender that does not
// find that among its own knows that it is not alone. An Open by itself changes nothing, unless its base does: a sender
// that finds out, and goes, leaves the other one's memory as it was.

// noteSenderLocked notes that the sender that has the stream has changed what is known of it.
func (s *stream) noteSenderLocked() {
	if s.last == s.sender {
		return
	}
	s.last = s.sender
	last := s.last
	s.publisher.last.Store(&last)
}

// lastSender is the incarnation that has last changed what is known of any of the publisher's streams; zero: it is not
// known.
func (p *publisher) lastSender() session.Incarnation {
	if last := p.last.Load(); last != nil {
		return *last
	}
	return session.Incarnation{}
}

// storedSender is the incarnation that a DedupeStore remembers; zero: none.
func storedSender(state store.StreamState) session.Incarnation {
	if state.Incarnation == [16]byte{} { // the sender told none, or the store keeps none
		return session.Incarnation{}
	}
	return session.Incarnation{Epoch: max(state.Epoch, 1), ID: state.Incarnation} // a store of positions knows no epoch
}

// restore takes over what a DedupeStore remembers of who has sent last.
func (p *publisher) restore(state store.StreamState) {
	if last := storedSender(state); last.Epoch > 0 {
		p.last.Store(&last)
	}
}

// addLast adds to an Opened who has sent last.
func addLast(f *wire.Opened, last session.Incarnation) {
	if f.LastEpoch = last.Epoch; last.ID != [16]byte{} {
		f.LastIncarnation = last.ID[:]
	}
}

// addFence adds to an Opened that refuses an Open which epoch is the newest, and whose that is, if it proves that it
// has the identity.
func (r *Receiver) addFence(answer *wire.Opened, f *wire.Open, principal string) {
	if len(f.Publisher) != 16 || len(f.Secret) != 16 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.publishers[[16]byte(f.Publisher)]
	if p == nil || !p.belongsTo(f, principal) || f.Epoch >= p.epoch {
		return
	}
	last := session.Incarnation{Epoch: p.epoch}
	if sender := p.lastSender(); sender.Epoch == p.epoch {
		last = sender
	}
	addLast(answer, last)
}
