package sender

import (
	"context"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// FetchConfig configures a FetchedStream. All fields but Sent are required.
type FetchConfig struct {
	Identity session.Identity
	Stream   uint64 // unique in the identity
	Topic    string // as it travels on the wire
	Base     uint64 // every sequence below is settled
	Sent     uint64 // an earlier process may have sent any message below; 0: none

	// OnSettled gets the runs of messages that need not be kept any longer. OnRefused gets single messages that the
	// peer refused and, with sequence 0, the end of the stream: the peer will take no message of it. Both are called
	// one at a time, without a lock of the caller's; while they block, the Sender takes no ack. What OnRefused was told of
	// is told again, after a reconnect or by a later process, until ConfirmRefused.
	OnSettled func([]store.Range)
	OnRefused func(seq uint64, err *session.PeerError)
}

// FetchedStream is a stream of a Sender whose messages a store keeps: they are fetched when the peer wants them, and
// again from where the peer stands after every reconnect. While there is no connection a FetchedStream holds none of
// them. Its methods are safe for concurrent use; one goroutine calls Next and Feed.
type FetchedStream struct {
	sender *Sender
	cfg    FetchConfig
	stream *session.Outbound // guarded by sender.mu
}

// Fetch begins a FetchedStream, which lives until End.
func (s *Sender) Fetch(cfg FetchConfig) (*FetchedStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	f := &FetchedStream{sender: s, cfg: cfg, stream: s.client.StartFetched(
		cfg.Identity, cfg.Stream, cfg.Topic, cfg.Base, cfg.Sent)}
	if s.fetched == nil {
		s.fetched = map[*session.Outbound]*FetchedStream{}
	}
	s.fetched[f.stream] = f
	return f, nil
}

// End removes the stream from its Sender.
func (f *FetchedStream) End() {
	f.sender.mu.Lock()
	defer f.sender.mu.Unlock()
	delete(f.sender.fetched, f.stream)
	f.sender.client.EndFetched(f.stream)
}

// Release ends the stream at both ends, if it is open: everything is settled, and its number is not used again. End must
// still be called.
func (f *FetchedStream) Release() {
	f.sender.mu.Lock()
	f.sender.client.ReleaseFetched(f.stream)
	f.sender.mu.Unlock()
	f.sender.kick()
}

// ConfirmRefused says that what OnRefused told of a message was dealt with: the peer may forget the message, and the stream
// goes on behind it.
func (f *FetchedStream) ConfirmRefused(seq uint64) {
	f.sender.mu.Lock()
	f.sender.client.ConfirmRefused(f.stream, seq)
	f.sender.mu.Unlock()
	f.sender.kick()
}

// Announce says that the messages below next can be fetched. The Sender connects if it has to.
func (f *FetchedStream) Announce(next uint64) {
	f.sender.mu.Lock()
	f.sender.client.Announce(f.stream, next)
	f.sender.mu.Unlock()
	f.sender.kick()
}

// Quiet tells that the stream is not open and no announced message waits: Next returns ok false until the message with
// the returned sequence is announced.
func (f *FetchedStream) Quiet() (next uint64, quiet bool) {
	f.sender.mu.Lock()
	defer f.sender.mu.Unlock()
	return f.stream.Idle()
}

// Next waits until messages are wanted, and returns the sequence of the first. generation goes with them into Feed. ok
// is false when the stream has become quiet.
func (f *FetchedStream) Next(ctx context.Context) (from, generation uint64, ok bool, err error) {
	for {
		f.sender.mu.Lock()
		err := f.stream.Err()
		from, generation, ok := f.stream.NextFetch()
		_, quiet := f.stream.Idle()
		room := f.stream.Room()
		f.sender.mu.Unlock()
		if err != nil || ok || quiet {
			return from, generation, ok, err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return 0, 0, false, ctx.Err()
		case <-f.sender.ctx.Done():
			return 0, 0, false, ErrClosed
		}
	}
}

// Feed hands fetched messages over. All messages between the last one fed and first are settled. A feed of an older
// generation does nothing.
func (f *FetchedStream) Feed(generation, first uint64, messages [][]byte) {
	f.sender.mu.Lock()
	f.sender.client.Feed(f.stream, generation, first, messages)
	f.sender.mu.Unlock()
	f.sender.kick()
}

// Lost returns a channel that is closed when what is wanted may have changed, as when the connection is lost.
func (f *FetchedStream) Lost() <-chan struct{} {
	f.sender.mu.Lock()
	defer f.sender.mu.Unlock()
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
