package receiver

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/buffers"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// makeRoomLocked forgets streams until enough returns true: first those that are neither connected nor have anything
// unsettled, with publishers that have no stream left; then also those whose absent publishers have not confirmed
// rejections, as one that never does would keep its place for good. It returns false if that was not enough, and then
// does not look again for ten times as long as it took: refused peers must not keep the Receiver busy.
func (r *Receiver) makeRoomLocked(enough func() bool) bool {
	begin := time.Now()
	if enough() || begin.Before(r.noEvictionBefore) {
		return enough()
	}
	for _, unneeded := range []func(*stream) bool{(*stream).forgettable, (*stream).abandoned} {
		if r.evictLocked(unneeded, "Too many publishers: idle ones were forgotten, and may duplicate when they return"); enough() {
			return true
		}
	}
	now := time.Now()
	r.noEvictionBefore = now.Add(10 * now.Sub(begin))
	return false
}

// evictLocked forgets the streams for which unneeded returns true, and publishers without streams. If it forgets any it
// logs that.
func (r *Receiver) evictLocked(unneeded func(*stream) bool, message string) {
	streams, publishers := r.streamCount, len(r.publishers)
	for id, p := range r.publishers {
		for _, s := range p.streams {
			if unneeded(s) {
				r.removeLocked(s)
			}
		}
		if len(p.streams) == 0 {
			delete(r.publishers, id)
		}
	}
	if r.streamCount < streams || len(r.publishers) < publishers {
		r.cfg.Logger.Info(message, watermill.LogFields{
			"provider": netio.Provider, "address": r.cfg.Address, "streams": streams - r.streamCount,
		})
		r.noteForgottenLocked(streams-r.streamCount, false)
	}
}

// removeUnused removes a stream, unless it is in use.
func (r *Receiver) removeUnused(s *stream) (removed bool) {
	defer r.tellUnheard()
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.inUse() {
		return false
	}
	r.removeLocked(s)
	return true
}

// forget removes a stream that its sender has ended, also from the DedupeStore, and the publisher with its last stream.
func (r *Receiver) forget(s *stream) {
	if !r.removeUnused(s) {
		return
	}
	r.forgetPublisher(s)
	if s.committer != nil {
		_ = s.committer.forget(s) // it only stays
	}
}

// forgetPublisher forgets the publisher of a stream that its sender has ended, if that was the last: everything that it
// sent is settled.
func (r *Receiver) forgetPublisher(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.publishers[s.id.Publisher]; p != nil && len(p.streams) == 0 {
		delete(r.publishers, s.id.Publisher)
	}
}

// topicEnded ends the streams of an ephemeral topic whose last subscription ended.
func (r *Receiver) topicEnded(t *dispatch.Topic, dropped int) {
	defer r.tellUnheard()
	for _, s := range r.removeTopic(t) {
		s.terminate(session.NewPeerError(wire.Code_CODE_TOPIC_GONE, "the topic's last subscription ended"))
	}
	if dropped > 0 {
		r.cfg.Logger.Info("An ephemeral topic ended with messages that were not handled", watermill.LogFields{
			"provider": netio.Provider, "topic": fmt.Sprintf("%.100q", t.Name()), "count": dropped,
		})
	}
}

// removeTopic removes a topic, and returns its streams.
func (r *Receiver) removeTopic(t *dispatch.Topic) []*stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	nameTaken := r.topics[t.Name()] != t
	if !nameTaken {
		r.deleteTopicLocked(t.Name())
	}
	r.gone.add(t, nameTaken, time.Now(), r.cfg.ForgetAfter, r.cfg.MaxTopics)
	return slices.Collect(maps.Keys(r.streams[t]))
}

// removeLocked removes a stream, and its topic if nothing else needs that. The publisher's epoch and secret stay.
func (r *Receiver) removeLocked(s *stream) {
	if _, filed := r.streams[s.topic][s]; !filed {
		return
	}
	r.unheard = append(r.unheard, s.takeUnheard()...)
	if p := r.publishers[s.id.Publisher]; p != nil {
		delete(p.streams, streamKey{s.id.Stream, s.id.Topic})
		p.streams = buffers.Shrink(p.streams, &p.mostStreams)
	}
	r.streamCount--
	if delete(r.streams[s.topic], s); len(r.streams[s.topic]) > 0 {
		return
	}
	delete(r.streams, s.topic)
	r.streams = buffers.Shrink(r.streams, &r.mostStreams)
	r.retireLocked(s.topic)
}
