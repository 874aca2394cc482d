package sender

import (
	"context"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// FetchConfig configures a FetchedStream. All fields but Sent, Openings and Tenure are required.
type FetchConfig struct {
	Identity session.Identity
	Stream   uint64          // unique in the identity
	Topic    string          // as it travels on the wire
	Base     uint64          // every sequence below is settled
	Sent     uint64          // an earlier process may have sent any message below; 0: none
	Openings []store.Opening // see store.Stream; nil: that is not known
	Tenure   uint64          // of the stream at this Sender; 0: the first

	// OnSettled gets the runs of messages that need not be kept any longer. OnRefused gets single messages that the
	// peer refused and, with sequence 0, the end of the stream: the peer will take no message of it. Both are called
	// one at a time, without a lock of the caller's; while they block, the Sender takes no ack. What OnRefused was told
	// of is told again, after a reconnect or by a later process, until ConfirmRefused.
	OnSettled func([]store.Range)
	OnRefused func(seq uint64, err *session.PeerError)
}

// FetchedStream is a stream of a Sender whose messages a store keeps: they are fetched when the peer wants them, and
// again from where the peer stands after every reconnect. While there is no connection a FetchedStream holds none of
// them. Its methods are safe for concurrent use; one goroutine calls Next and Feed.
type FetchedStream struct {
	place
	cfg    FetchConfig
	stream *session.Outbound // guarded by the mutex of the Sender
}

// Fetch begins a FetchedStream, which lives until End.
func (s *Sender) Fetch(cfg FetchConfig) (*FetchedStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	f := &FetchedStream{cfg: cfg, stream: s.client.StartFetched(
		cfg.Identity, cfg.Stream, cfg.Topic, cfg.Base, cfg.Sent)}
	f.at.Store(s)
	f.stream.KnowOpenings(cfg.Openings)
	f.stream.Resume(cfg.Tenure)
	s.addFetchedLocked(f)
	return f, nil
}

func (s *Sender) addFetchedLocked(f *FetchedStream) {
	if s.fetched == nil {
		s.fetched = map[*session.Outbound]*FetchedStream{}
	}
	s.fetched[f.stream] = f
}

// LeftBehind has the peer void what an earlier process may have left there of a stream that is elsewhere now: with
// cfg.Tenure for the present one. Only the fields that say which stream it is are used.
func (s *Sender) LeftBehind(cfg FetchConfig) {
	s.mu.Lock()
	s.client.LeftBehind(cfg.Identity, cfg.Stream, cfg.Topic, cfg.Tenure)
	s.mu.Unlock()
	s.kick()
}

// End removes the stream from its Sender.
func (f *FetchedStream) End() {
	s := f.lock()
	defer s.mu.Unlock()
	delete(s.fetched, f.stream)
	s.client.EndFetched(f.stream)
}

// Release ends the stream at both ends, if it is open: everything is settled, and its number is not used again. End
// must still be called.
func (f *FetchedStream) Release() {
	s := f.lock()
	s.client.ReleaseFetched(f.stream)
	s.mu.Unlock()
	s.kick()
}

// ConfirmRefused says that what OnRefused told of a message was dealt with: the peer may forget the message, and the
// stream goes on behind it.
func (f *FetchedStream) ConfirmRefused(seq uint64) {
	s := f.lock()
	s.client.ConfirmRefused(f.stream, seq)
	s.mu.Unlock()
	s.kick()
}

// Announce says that the messages below next can be fetched. The Sender connects if it has to.
func (f *FetchedStream) Announce(next uint64) {
	s := f.lock()
	s.client.Announce(f.stream, next)
	s.mu.Unlock()
	s.kick()
}

// Quiet tells that the stream is not open and no announced message waits: Next returns ok false until the message with
// the returned sequence is announced.
func (f *FetchedStream) Quiet() (next uint64, quiet bool) {
	s := f.lock()
	defer s.mu.Unlock()
	return f.stream.Idle()
}

// Next waits until messages are wanted, and returns the sequence of the first. generation goes with them into Feed. ok
// is false when the stream has become quiet.
func (f *FetchedStream) Next(ctx context.Context) (from, generation uint64, ok bool, err error) {
	for {
		s := f.lock()
		err := f.stream.Err()
		from, generation, ok := f.stream.NextFetch()
		_, quiet := f.stream.Idle()
		room := f.stream.Room()
		s.mu.Unlock()
		if err != nil || ok || quiet {
			return from, generation, ok, err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return 0, 0, false, ctx.Err()
		case <-s.ctx.Done():
			if f.at.Load() == s {
				return 0, 0, false, ErrClosed
			}
		}
	}
}

// Feed hands fetched messages over. All messages between the last one fed and first are settled. A feed of an older
// generation does nothing.
func (f *FetchedStream) Feed(generation, first uint64, messages [][]byte) {
	s := f.lock()
	s.client.Feed(f.stream, generation, first, messages)
	s.mu.Unlock()
	s.kick()
}

// Lost returns a channel that is closed when what is wanted may have changed, as when the connection is lost.
func (f *FetchedStream) Lost() <-chan struct{} {
	s := f.lock()
	defer s.mu.Unlock()
	return f.stream.Room()
}

// streamEvents is what happened to messages of a FetchedStream.
type streamEvents struct {
	fetched *FetchedStream
	events  []session.Event
}

func (s *Sender) streamEventsLocked() (all []streamEvents) {
	for _, o := range s.client.WithEvents() {
		if f := s.fetched[o]; f != nil {
			all = append(all, streamEvents{f, o.Events()})
		}
	}
	return all
}

// deliver calls the hooks of the stream.
func (e streamEvents) deliver() {
	var settled []store.Range
	for _, event := range e.events {
		if event.Err != nil {
			e.fetched.cfg.OnRefused(event.First, event.Err)
		} else {
			settled = append(settled, store.Range{First: event.First, Last: event.Last})
		}
	}
	if len(settled) > 0 {
		e.fetched.cfg.OnSettled(settled)
	}
}

// Leave has the present receiver asked to give the stream back, where that is needed, so that it can move. Nothing more
// is sent there. It returns false if the receiver does not know how, and the stream goes on.
func (f *FetchedStream) Leave() bool {
	s := f.lock()
	left := s.client.Leave(f.stream, time.Now())
	s.mu.Unlock()
	s.kick()
	return left
}

// Stay ends what Leave began.
func (f *FetchedStream) Stay() {
	s := f.lock()
	s.client.Stay(f.stream)
	s.mu.Unlock()
	s.kick()
}

// MayMove tells whether the stream can move now: nothing was sent, or it was given back, or its receiver is gone or
// silent.
func (f *FetchedStream) MayMove() bool {
	s := f.lock()
	defer s.mu.Unlock()
	return s.client.MayMove(f.stream)
}

// Tenure counts the places that the stream has had.
func (f *FetchedStream) Tenure() uint64 {
	defer f.lock().mu.Unlock()
	return f.stream.Tenure()
}

// NextTenure is the tenure that a move would begin now.
func (f *FetchedStream) NextTenure() uint64 {
	defer f.lock().mu.Unlock()
	return f.stream.NextTenure()
}

// MoveTo moves a stream for which MayMove is true to another Sender with the same Mover, and returns how many of its
// messages can come twice because of that. ok is false if it cannot.
func (f *FetchedStream) MoveTo(to *Sender) (repeats int, ok bool) {
	from := f.at.Load()
	repeats, ok = f.exchange(from, to)
	from.kick()
	to.kick()
	return repeats, ok
}

func (f *FetchedStream) exchange(from, to *Sender) (repeats int, ok bool) {
	if from.cfg.Mover == nil || from == to {
		return 0, false
	}
	from.cfg.Mover.mu.Lock()
	defer from.cfg.Mover.mu.Unlock()
	from.mu.Lock()
	defer from.mu.Unlock()
	to.mu.Lock()
	defer to.mu.Unlock()
	if f.at.Load() != from || from.closed || to.closed || to.retired || !from.client.MayMove(f.stream) {
		return 0, false
	}
	repeats = from.client.Detach(f.stream)
	delete(from.fetched, f.stream)
	to.client.Adopt(f.stream)
	to.addFetchedLocked(f)
	f.at.Store(to)
	return repeats, true
}
