package pool

import (
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	wire "github.com/buffstreams/watermill-buffstreams/proto"
)

// publisher is what an Endpoint remembers of one publisher id.
type publisher struct {
	epoch   uint64
	secret  [16]byte
	streams map[streamKey]*stream
}

type streamKey struct {
	stream uint64
	topic  string
}

// open finds or makes the stream that an Open names, and tells who may not have it.
func (e *Endpoint) open(f *wire.Open) (*stream, *session.PeerError) {
	if len(f.Publisher) != 16 || len(f.Secret) != 16 || len(f.Topic) > maxTopicName {
		return nil, &session.PeerError{Code: wire.Code_CODE_PROTOCOL, Reason: "malformed open"}
	}
	id := StreamID{Publisher: [16]byte(f.Publisher), Stream: f.Stream, Topic: f.Topic}
	stored, known, err := e.recall(id)
	if err != nil {
		return nil, &session.PeerError{Code: wire.Code_CODE_LIMIT, Reason: "the dedupe store cannot be read"}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p, refused := e.publisher(f, stored, known)
	if refused != nil {
		return nil, refused
	}
	key := streamKey{f.Stream, f.Topic}
	s := p.streams[key]
	if s != nil {
		return s, nil
	}
	if e.gone.has(f.Topic, time.Now()) {
		return nil, &session.PeerError{Code: wire.Code_CODE_TOPIC_GONE, Reason: "the topic's last subscription ended"}
	}
	if e.count >= e.cfg.MaxStreams && !e.evict() {
		return nil, &session.PeerError{Code: wire.Code_CODE_LIMIT, Reason: "too many streams"}
	}
	if e.topics[f.Topic] == nil && len(e.topics) >= e.cfg.MaxTopics {
		return nil, &session.PeerError{Code: wire.Code_CODE_LIMIT, Reason: "too many topics"}
	}
	s = &stream{id: id, topic: e.topic(f.Topic), secret: p.secret, in: session.RestoreInbound(stored.Settled, f.Base)}
	if !s.topic.IsEphemeral() { // what ends with its subscription has no place on disk
		s.saver = e.saver
	}
	if f.Base > 1 && !known {
		e.cfg.logger.Info("A publisher returns and what it sent is not remembered: duplicates are possible", watermill.LogFields{
			"provider": provider, "address": e.cfg.target.Address, "topic": fmt.Sprintf("%.100q", f.Topic),
		})
	}
	e.add(p, key, s)
	return s, nil
}

// recall asks the DedupeStore for a stream that is not in memory.
func (e *Endpoint) recall(id StreamID) (state StreamState, known bool, err error) {
	e.mu.Lock()
	if p := e.publishers[id.Publisher]; p != nil && p.streams[streamKey{id.Stream, id.Topic}] != nil {
		known = true
	}
	e.mu.Unlock()
	if known || e.cfg.Dedupe == nil {
		return state, known, nil
	}
	state, known, err = e.cfg.Dedupe.Load(id)
	if err != nil {
		e.cfg.logger.Error("The dedupe store cannot be read: the stream is refused", err, watermill.LogFields{
			"provider": provider, "address": e.cfg.target.Address,
		})
	}
	return state, known, err
}

// publisher finds or makes the publisher that an Open names, and fences older epochs and strangers. e.mu is held.
func (e *Endpoint) publisher(f *wire.Open, stored StreamState, known bool) (*publisher, *session.PeerError) {
	id := [16]byte(f.Publisher)
	p := e.publishers[id]
	if p == nil {
		if len(e.publishers) >= e.cfg.MaxPublishers && !e.evict() {
			return nil, &session.PeerError{Code: wire.Code_CODE_LIMIT, Reason: "too many publishers"}
		}
		p = &publisher{epoch: f.Epoch, secret: [16]byte(f.Secret), streams: map[streamKey]*stream{}}
		if known && stored.Epoch > 0 {
			p.epoch, p.secret = stored.Epoch, stored.Secret
		}
		e.publishers[id] = p
	}
	if subtle.ConstantTimeCompare(p.secret[:], f.Secret) != 1 {
		return nil, &session.PeerError{Code: wire.Code_CODE_FENCED, Reason: "the publisher id belongs to somebody else"}
	}
	if f.Epoch < p.epoch {
		return nil, &session.PeerError{Code: wire.Code_CODE_FENCED, Reason: "a newer epoch of this publisher was seen"}
	}
	if f.Epoch > p.epoch {
		p.epoch = f.Epoch
		for _, s := range p.streams {
			s.fence(f.Epoch)
		}
	}
	return p, nil
}

// add files a stream. e.mu is held.
func (e *Endpoint) add(p *publisher, key streamKey, s *stream) {
	p.streams[key] = s
	e.publishers[s.id.Publisher] = p // making room may have evicted it, as it had no stream yet
	if e.streams[s.topic] == nil {
		e.streams[s.topic] = map[*stream]struct{}{}
	}
	e.streams[s.topic][s] = struct{}{}
	e.count++
}

// remove takes a stream out, and its topic if nobody wants that. The publisher's epoch and secret stay. e.mu is held.
func (e *Endpoint) remove(s *stream) {
	if _, filed := e.streams[s.topic][s]; !filed {
		return
	}
	if p := e.publishers[s.id.Publisher]; p != nil {
		delete(p.streams, streamKey{s.id.Stream, s.id.Topic})
	}
	e.count--
	if delete(e.streams[s.topic], s); len(e.streams[s.topic]) > 0 {
		return
	}
	delete(e.streams, s.topic)
	if e.topics[s.id.Topic] == s.topic && s.topic.Deserted() {
		delete(e.topics, s.id.Topic)
	}
}

// evict forgets streams of which nothing is connected and nothing unsettled, and publishers without streams; it returns
// false when there are none. e.mu is held.
func (e *Endpoint) evict() bool {
	streams, publishers := e.count, len(e.publishers)
	for id, p := range e.publishers {
		for _, s := range p.streams {
			if s.forgettable() {
				e.remove(s)
			}
		}
		if len(p.streams) == 0 {
			delete(e.publishers, id)
		}
	}
	if e.count < streams || len(e.publishers) < publishers {
		e.cfg.logger.Info("Too many publishers: idle ones were forgotten, and may duplicate when they return", watermill.LogFields{
			"provider": provider, "address": e.cfg.target.Address, "streams": streams - e.count,
		})
		return true
	}
	return false
}

// release forgets a stream that is over.
func (e *Endpoint) release(s *stream) {
	e.mu.Lock()
	e.remove(s)
	e.mu.Unlock()
}

// erase forgets a stream that its sender has ended, also in the DedupeStore.
func (e *Endpoint) erase(s *stream) {
	e.release(s)
	if e.cfg.Dedupe == nil {
		return
	}
	if err := e.cfg.Dedupe.Forget(s.id); err != nil {
		e.cfg.logger.Info("The dedupe store cannot forget a stream", watermill.LogFields{"provider": provider, "err": err})
	}
}

// end ends the streams of an ephemeral topic whose last subscription ended.
func (e *Endpoint) end(t *dispatch.Topic, dropped int) {
	e.mu.Lock()
	if e.topics[t.Name()] == t {
		delete(e.topics, t.Name())
		e.gone.add(t.Name(), time.Now(), e.cfg.ForgetAfter, e.cfg.MaxTopics)
	}
	var streams []*stream
	for s := range e.streams[t] {
		streams = append(streams, s)
	}
	e.mu.Unlock()
	for _, s := range streams {
		s.end(&session.PeerError{Code: wire.Code_CODE_TOPIC_GONE, Reason: "the topic's last subscription ended"})
		e.release(s)
	}
	if dropped > 0 {
		e.cfg.logger.Info("An ephemeral topic ended with messages that nobody has handled", watermill.LogFields{
			"provider": provider, "topic": fmt.Sprintf("%.100q", t.Name()), "count": dropped,
		})
	}
}
