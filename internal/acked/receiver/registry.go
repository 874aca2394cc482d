package receiver

import (
	"cmp"
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// maxTopicName is the longest topic name that a stream may have, in bytes.
const maxTopicName = 1024

// publisher is what a Receiver remembers of one publisher id. Receiver.mu guards it.
type publisher struct {
	epoch     uint64
	secret    [16]byte
	principal string // empty without authentication
	streams   map[streamKey]*stream

	mostStreams int

	last atomic.Pointer[session.Incarnation] // see lastSender; not guarded
}

type streamKey struct {
	stream uint64
	topic  string
}

// compare orders a publisher's streams, so that a simulation can repeat what is done to all of them.
func (s *stream) compare(other *stream) int {
	return cmp.Or(cmp.Compare(s.id.Stream, other.id.Stream), strings.Compare(s.id.Topic, other.id.Topic))
}

// open finds or makes the stream that an Open names, or refuses it. The caller attaches the stream: until then it is
// not forgotten. The caller ends the voided stream, whose place it takes, if there is one.
func (r *Receiver) open(f *wire.Open, principal string) (s, voided *stream, refused *session.PeerError) {
	if len(f.Publisher) != 16 || len(f.Secret) != 16 || len(f.Topic) > maxTopicName ||
		f.Epoch == 0 || f.Stream == 0 || f.Base == 0 {
		return nil, nil, session.NewPeerError(wire.Code_CODE_PROTOCOL, "malformed open")
	}
	id := store.StreamID{Publisher: [16]byte(f.Publisher), Stream: f.Stream, Topic: f.Topic}
	for stale := true; stale; {
		memory, err := r.recall(id)
		if err != nil {
			return nil, nil, session.NewPeerError(wire.Code_CODE_LIMIT, "the dedupe store cannot be read")
		}
		s, voided, refused, stale = r.openRecalled(f, principal, id, memory)
	}
	return s, voided, refused
}

// openRecalled is open with what is known of the stream, unless that is stale.
func (r *Receiver) openRecalled(f *wire.Open, principal string, id store.StreamID, memory recalled) (
	s, voided *stream, refused *session.PeerError, stale bool,
) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.endRecallLocked(id, memory) {
		return nil, nil, nil, true
	}
	s, voided, refused = r.openLocked(f, principal, id, memory)
	return s, voided, refused, false
}

// openLocked is openRecalled where that is not stale. The caller must hold mu.
func (r *Receiver) openLocked(f *wire.Open, principal string, id store.StreamID, memory recalled) (
	s, voided *stream, refused *session.PeerError,
) {
	stored, known := memory.state, memory.known
	p, refused := r.publisherLocked(f, principal, stored, known)
	if refused != nil {
		return nil, nil, refused
	}
	key := streamKey{f.Stream, f.Topic}
	gone := r.gone.has(f.Topic, time.Now())
	s = p.streams[key]
	if r.storeFailedLocked(s, f.Topic) {
		return nil, nil, session.NewPeerError(wire.Code_CODE_LIMIT, "the dedupe store has failed: nothing more is taken")
	}
	switch {
	case s == nil:
	case !s.isEnded() && s.isAfter(f):
		return nil, nil, session.NewPeerError(wire.Code_CODE_FENCED, "a newer tenure of this stream was seen")
	case !s.isEnded() && !gone && s.isVoidedBy(f):
		stored.Settled, stored.Groups, known, voided = s.settled(), s.state().Groups, true, s
		r.replaceLocked(s)
	case !s.isEnded() || gone:
		s.beginOpen()
		return s, nil, nil
	default: // the topic exists again
		stored.Settled, known = s.settled(), true
		r.replaceLocked(s)
	}
	if gone {
		return nil, nil, session.NewPeerError(wire.Code_CODE_TOPIC_GONE, "the topic's last subscription ended")
	}
	if !r.makeRoomLocked(func() bool { return r.streamCount < r.cfg.MaxStreams }) {
		return nil, nil, session.NewPeerError(wire.Code_CODE_LIMIT, "too many streams")
	}
	if r.topics[f.Topic] == nil && len(r.topics) >= r.cfg.MaxTopics {
		return nil, nil, session.NewPeerError(wire.Code_CODE_LIMIT, "too many topics")
	}
	s = &stream{
		receiver: r, id: id, topic: r.topicLocked(f.Topic), publisher: p, secret: p.secret,
		in: session.RestoreInbound(stored.Settled, f.Base), last: storedSender(stored), fresh: true,
	}
	if !s.topic.IsEphemeral() { // what ends with its subscription has no place on disk
		s.committer = r.committer
	}
	s.restoreGroups(stored.Groups)
	if f.Base > 1 && !known {
		r.logForgottenLocked(f.Topic)
	}
	r.addLocked(p, key, s)
	s.beginOpen()
	return s, voided, nil
}

// replaceLocked removes a stream in whose place its sender begins another: it has what it was not told to be rejected.
func (r *Receiver) replaceLocked(s *stream) {
	s.takeUnheard()
	r.removeLocked(s)
}

// storeFailedLocked tells whether the DedupeStore has failed and the stream, which is nil if it is new, needs it.
func (r *Receiver) storeFailedLocked(s *stream, topic string) bool {
	if r.committer == nil || !r.committer.broken.Load() {
		return false
	}
	if s != nil {
		return s.committer != nil
	}
	t := r.topics[topic]
	return t == nil || !t.IsEphemeral()
}

// logForgottenLocked logs that a publisher knows more of a stream than the Receiver does: at most once a second, as a
// peer can claim that as often as it likes.
func (r *Receiver) logForgottenLocked(topic string) {
	r.forgotten++
	if now := time.Now(); now.Sub(r.forgottenLogged) >= time.Second {
		r.cfg.Logger.Info("A publisher returns and what it sent is not remembered: duplicates are possible", watermill.LogFields{
			"provider": netio.Provider, "address": r.cfg.Address, "topic": fmt.Sprintf("%.100q", topic), "count": r.forgotten,
		})
		r.forgotten, r.forgottenLogged = 0, now
	}
	r.noteForgottenLocked(1, true)
}

// publisherLocked finds or makes the publisher that an Open names. It refuses older epochs, and peers that the id does
// not belong to. A publisher that it makes is registered with its first stream, so that an Open that is refused leaves
// nothing behind.
func (r *Receiver) publisherLocked(f *wire.Open, principal string, stored store.StreamState, known bool) (*publisher, *session.PeerError) {
	id := [16]byte(f.Publisher)
	p := r.publishers[id]
	if p == nil {
		if !r.makeRoomLocked(func() bool { return len(r.publishers) < r.cfg.MaxPublishers }) {
			return nil, session.NewPeerError(wire.Code_CODE_LIMIT, "too many publishers")
		}
		p = &publisher{epoch: f.Epoch, secret: [16]byte(f.Secret), principal: principal, streams: map[streamKey]*stream{}}
		if known && stored.Epoch > 0 {
			p.epoch, p.secret = stored.Epoch, stored.Secret
			r.publishers[id] = p // its other streams are fenced too, though the store may not know them
		}
		p.restore(stored)
	}
	if stored.Epoch > p.epoch { // another of its streams came first, and an earlier life of this listener had heard more
		p.secret = stored.Secret
		p.raise(stored.Epoch)
		p.restore(stored)
	}
	if !p.belongsTo(f, principal) {
		return nil, session.NewPeerError(wire.Code_CODE_FENCED, "the publisher id belongs to another peer")
	}
	if f.Epoch < p.epoch {
		return nil, session.NewPeerError(wire.Code_CODE_FENCED, "a newer epoch of this publisher was seen")
	}
	if f.Epoch > p.epoch {
		p.raise(f.Epoch)
	}
	return p, nil
}

// belongsTo tells whether an Open comes from the publisher's owner.
func (p *publisher) belongsTo(f *wire.Open, principal string) bool {
	return subtle.ConstantTimeCompare(p.secret[:], f.Secret) == 1 && p.principal == principal
}

// raise begins a newer epoch: streams of an older one are taken off their connections.
func (p *publisher) raise(epoch uint64) {
	p.epoch = epoch
	for _, s := range slices.SortedFunc(maps.Values(p.streams), (*stream).compare) {
		s.fence(epoch)
	}
}

// addLocked registers a stream.
func (r *Receiver) addLocked(p *publisher, key streamKey, s *stream) {
	delete(r.recalls, s.id) // from here on the store may be behind
	p.streams[key] = s
	r.armIdleTimerLocked()
	r.publishers[s.id.Publisher] = p
	if r.streams[s.topic] == nil {
		r.streams[s.topic] = map[*stream]struct{}{}
	}
	r.streams[s.topic][s] = struct{}{}
	r.streamCount++
}
