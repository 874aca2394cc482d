package receiver

import (
	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// recalled is what is known of a stream when it is opened.
type recalled struct {
	state  store.StreamState // of the DedupeStore
	known  bool
	held   bool    // it is in memory, and the store was not asked
	recall *recall // nil: the store was not asked
}

// recall is what the Opens of one stream have in common that ask the DedupeStore at the same time. The stream may begin,
// settle messages and be forgotten, all while the store answers one of them: so the recall ends where a stream begins,
// and what the others were told is stale. Receiver.mu guards it.
type recall struct{ asking int }

// recall asks the DedupeStore for a stream that is not in memory. endRecallLocked follows, unless it returns an error.
func (r *Receiver) recall(id store.StreamID) (m recalled, err error) {
	if m = r.beginRecall(id); m.recall == nil {
		return m, nil
	}
	m.state, m.known, err = r.cfg.Dedupe.Load(id)
	if err != nil {
		r.mu.Lock()
		r.endRecallLocked(id, m)
		r.mu.Unlock()
		r.cfg.Logger.Error("The dedupe store cannot be read: the stream is refused", err, watermill.LogFields{
			"provider": netio.Provider, "address": r.cfg.Address,
		})
	}
	return m, err
}

func (r *Receiver) beginRecall(id store.StreamID) (m recalled) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.held = r.knowsLocked(id); m.held || r.cfg.Dedupe == nil {
		m.known = m.held
		return m
	}
	if m.recall = r.recalls[id]; m.recall == nil {
		m.recall = &recall{}
		r.recalls[id] = m.recall
	}
	m.recall.asking++
	return m
}

// endRecallLocked tells whether what recall returned is stale: the stream was in memory and is not there any more, or
// was not and has begun since. The caller must hold mu.
func (r *Receiver) endRecallLocked(id store.StreamID, m recalled) (stale bool) {
	if m.recall == nil {
		return m.held && !r.knowsLocked(id)
	}
	stale = r.recalls[id] != m.recall
	if m.recall.asking--; m.recall.asking == 0 && !stale {
		delete(r.recalls, id)
	}
	return stale
}

func (r *Receiver) knowsLocked(id store.StreamID) bool {
	p := r.publishers[id.Publisher]
	return p != nil && p.streams[streamKey{id.Stream, id.Topic}] != nil
}
