package receiver

import (
	"cmp"
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// publisher is what an Endpoint remembers of one publisher id.
type publisher struct {
	epoch     uint64
	secret    [16]byte
	principal string // empty without authentication
	streams   map[streamKey]*stream
}

type streamKey struct {
	stream uint64
	topic  string
}

// compare orders a publisher's streams, so that a simulation can repeat what is done to all of them.
func (s *stream) compare(other *stream) int {
	return cmp.Or(cmp.Compare(s.id.Stream, other.id.Stream), strings.Compare(s.id.Topic, other.id.Topic))
}

// open finds or makes the stream that an Open names, and tells who may not have it. Whoever gets the stream attaches it:
// until then nobody else makes the endpoint forget it.
func (e *Receiver) open(f *wire.Open, principal string) (*stream, *session.PeerError) {
	if len(f.Publisher) != 16 || len(f.Secret) != 16 || len(f.Topic) > maxTopicName {
		return nil, session.NewPeerError(wire.Code_CODE_PROTOCOL, "malformed open")
	}
	id := store.StreamID{Publisher: [16]byte(f.Publisher), Stream: f.Stream, Topic: f.Topic}
	stored, known, err := e.recall(id)
	if err != nil {
		return nil, session.NewPeerError(wire.Code_CODE_LIMIT, "the dedupe store cannot be read")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p, refused := e.publisher(f, principal, stored, known)
	if refused != nil {
		return nil, refused
	}
	key := streamKey{f.Stream, f.Topic}
	s := p.streams[key]
	if s != nil {
		s.claimed()
		return s, nil
	}
	if e.gone.has(f.Topic, time.Now()) {
		return nil, session.NewPeerError(wire.Code_CODE_TOPIC_GONE, "the topic's last subscription ended")
	}
	if !e.makeRoom(func() bool { return e.count < e.cfg.MaxStreams }) {
		return nil, session.NewPeerError(wire.Code_CODE_LIMIT, "too many streams")
	}
	if e.topics[f.Topic] == nil && len(e.topics) >= e.cfg.MaxTopics {
		return nil, session.NewPeerError(wire.Code_CODE_LIMIT, "too many topics")
	}
	s = &stream{id: id, topic: e.topic(f.Topic), secret: p.secret, in: session.RestoreInbound(stored.Settled, f.Base)}
	if !s.topic.IsEphemeral() { // what ends with its subscription has no place on disk
		s.committer = e.committer
	}
	if f.Base > 1 && !known {
		e.sayForgotten(f.Topic)
	}
	e.add(p, key, s)
	s.claimed()
	return s, nil
}

// sayForgotten says that a publisher knows more of a stream than the endpoint does: once in a while, as a peer can claim
// that as often as it likes. e.mu is held.
func (e *Receiver) sayForgotten(topic string) {
	e.forgotten++
	if now := time.Now(); now.Sub(e.forgottenSaid) >= time.Second {
		e.cfg.Logger.Info("A publisher returns and what it sent is not remembered: duplicates are possible", watermill.LogFields{
			"provider": netio.Provider, "address": e.cfg.Address, "topic": fmt.Sprintf("%.100q", topic), "count": e.forgotten,
		})
		e.forgotten, e.forgottenSaid = 0, now
	}
}

// recall asks the DedupeStore for a stream that is not in memory.
func (e *Receiver) recall(id store.StreamID) (state store.StreamState, known bool, err error) {
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
		e.cfg.Logger.Error("The dedupe store cannot be read: the stream is refused", err, watermill.LogFields{
			"provider": netio.Provider, "address": e.cfg.Address,
		})
	}
	return state, known, err
}

// publisher finds or makes the publisher that an Open names, and fences older epochs and strangers. e.mu is held.
func (e *Receiver) publisher(f *wire.Open, principal string, stored store.StreamState, known bool) (*publisher, *session.PeerError) {
	id := [16]byte(f.Publisher)
	p := e.publishers[id]
	if p == nil {
		if !e.makeRoom(func() bool { return len(e.publishers) < e.cfg.MaxPublishers }) {
			return nil, session.NewPeerError(wire.Code_CODE_LIMIT, "too many publishers")
		}
		p = &publisher{epoch: f.Epoch, secret: [16]byte(f.Secret), principal: principal, streams: map[streamKey]*stream{}}
		if known && stored.Epoch > 0 {
			p.epoch, p.secret = stored.Epoch, stored.Secret
		}
		e.publishers[id] = p
	}
	if stored.Epoch > p.epoch { // another of its streams came first, and an earlier life of this listener had heard more
		p.secret = stored.Secret
		p.raise(stored.Epoch)
	}
	if subtle.ConstantTimeCompare(p.secret[:], f.Secret) != 1 || p.principal != principal {
		return nil, session.NewPeerError(wire.Code_CODE_FENCED, "the publisher id belongs to somebody else")
	}
	if f.Epoch < p.epoch {
		return nil, session.NewPeerError(wire.Code_CODE_FENCED, "a newer epoch of this publisher was seen")
	}
	if f.Epoch > p.epoch {
		p.raise(f.Epoch)
	}
	return p, nil
}

// raise begins a newer epoch. The Endpoint's mu is held.
func (p *publisher) raise(epoch uint64) {
	p.epoch = epoch
	for _, s := range slices.SortedFunc(maps.Values(p.streams), (*stream).compare) {
		s.fence(epoch)
	}
}

// add files a stream. e.mu is held.
func (e *Receiver) add(p *publisher, key streamKey, s *stream) {
	p.streams[key] = s
	e.publishers[s.id.Publisher] = p // making room may have evicted it, as it had no stream yet
	if e.streams[s.topic] == nil {
		e.streams[s.topic] = map[*stream]struct{}{}
	}
	e.streams[s.topic][s] = struct{}{}
	e.count++
}

// remove takes a stream out, and its topic if nobody wants that. The publisher's epoch and secret stay. e.mu is held.
func (e *Receiver) remove(s *stream) {
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
	if e.topics[s.id.Topic] == s.topic && s.topic.Unused() {
		delete(e.topics, s.id.Topic)
	}
}

// makeRoom forgets, until there is room, streams of which nothing is connected and nothing unsettled, and publishers
// without streams; then also streams whose absent publishers have not confirmed rejections: who never does would otherwise
// keep its place for good. It returns false when all of that was not enough, and then does not look again for ten times as
// long as it took: whoever asks in vain must not keep the endpoint busy. e.mu is held.
func (e *Receiver) makeRoom(enough func() bool) bool {
	begin := time.Now()
	if enough() || begin.Before(e.fullUntil) {
		return enough()
	}
	for _, gone := range []func(*stream) bool{(*stream).forgettable, (*stream).abandoned} {
		if e.evict(gone); enough() {
			return true
		}
	}
	now := time.Now()
	e.fullUntil = now.Add(10 * now.Sub(begin))
	return false
}

// evict forgets the streams that are gone, and publishers without streams. e.mu is held.
func (e *Receiver) evict(gone func(*stream) bool) {
	streams, publishers := e.count, len(e.publishers)
	for id, p := range e.publishers {
		for _, s := range p.streams {
			if gone(s) {
				e.remove(s)
			}
		}
		if len(p.streams) == 0 {
			delete(e.publishers, id)
		}
	}
	if e.count < streams || len(e.publishers) < publishers-1 { // the one that asks may have no stream yet
		e.cfg.Logger.Info("Too many publishers: idle ones were forgotten, and may duplicate when they return", watermill.LogFields{
			"provider": netio.Provider, "address": e.cfg.Address, "streams": streams - e.count,
		})
	}
}

// release forgets a stream that is over, unless another connection has it, or is about to.
func (e *Receiver) release(s *stream) (released bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.wanted() {
		return false
	}
	e.remove(s)
	return true
}

// erase forgets a stream that its sender has ended, also in the DedupeStore.
func (e *Receiver) erase(s *stream) {
	if !e.release(s) || e.cfg.Dedupe == nil {
		return
	}
	if err := e.cfg.Dedupe.Forget(s.id); err != nil {
		e.cfg.Logger.Info("The dedupe store cannot forget a stream", watermill.LogFields{"provider": netio.Provider, "err": err})
	}
}

// end ends the streams of an ephemeral topic whose last subscription ended.
func (e *Receiver) end(t *dispatch.Topic, dropped int) {
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
		s.end(session.NewPeerError(wire.Code_CODE_TOPIC_GONE, "the topic's last subscription ended"))
		e.release(s)
	}
	if dropped > 0 {
		e.cfg.Logger.Info("An ephemeral topic ended with messages that nobody has handled", watermill.LogFields{
			"provider": netio.Provider, "topic": fmt.Sprintf("%.100q", t.Name()), "count": dropped,
		})
	}
}
