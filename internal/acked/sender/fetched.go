package sender

import (
	"context"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Identity names a publisher across its connections and restarts.
type Identity = session.Identity

// PeerError is a refusal by the peer.
type PeerError = session.PeerError

// RelayConfig sets up a Relay.
type FetchConfig struct {
	Identity Identity
	Stream   uint64 // unique in the identity
	Topic    string // as it travels on the wire
	Base     uint64 // every sequence below is settled
	// OnSettled is told of runs of messages that need not be kept any longer, OnRefused of single ones that the peer
	// refused, and, with sequence 0, of the end of the stream: the peer will take no message of it. Both are called from
	// one goroutine with no lock held; while they block, the link's acks wait.
	OnSettled func([]store.Range)
	OnRefused func(seq uint64, err *PeerError)
}

// Relay is a stream of a Link whose messages a store keeps: they are fetched when the peer wants them, and again from
// where it stands after every reconnect. While there is no connection a Relay holds none of them.
type FetchedStream struct {
	sender *Sender
	cfg    FetchConfig
	o      *session.Outbound
}

// Relay begins a relay. End ends it.
func (l *Sender) Fetch(cfg FetchConfig) (*FetchedStream, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	r := &FetchedStream{sender: l, cfg: cfg, o: l.client.StartFetched(cfg.Identity, cfg.Stream, cfg.Topic, cfg.Base)}
	if l.fetched == nil {
		l.fetched = map[*session.Outbound]*FetchedStream{}
	}
	l.fetched[r.o] = r
	return r, nil
}

// End takes the relay off its link.
func (r *FetchedStream) End() {
	r.sender.mu.Lock()
	defer r.sender.mu.Unlock()
	delete(r.sender.fetched, r.o)
	r.sender.client.EndFetched(r.o)
}

// Announce says that the messages below next can be fetched: the link connects if it has to.
func (r *FetchedStream) Announce(next uint64) {
	r.sender.mu.Lock()
	r.sender.client.Announce(r.o, next)
	r.sender.mu.Unlock()
	r.sender.kick()
}

// Quiet tells that there is no connection and nothing waits, as far as was announced: Next would wait until the message
// with the returned sequence is.
func (r *FetchedStream) Quiet() (next uint64, quiet bool) {
	r.sender.mu.Lock()
	defer r.sender.mu.Unlock()
	return r.o.Idle()
}

// Next waits until messages are wanted, and returns the sequence of the first. generation goes with them into Feed.
// It returns ok false when the relay has gone quiet.
func (r *FetchedStream) Next(ctx context.Context) (from, generation uint64, ok bool, err error) {
	for {
		r.sender.mu.Lock()
		err := r.o.Err()
		from, generation, ok := r.o.NextFetch()
		_, quiet := r.o.Idle()
		room := r.o.Room()
		r.sender.mu.Unlock()
		if err != nil || ok || quiet {
			return from, generation, ok, err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return 0, 0, false, ctx.Err()
		case <-r.sender.ctx.Done():
			return 0, 0, false, ErrClosed
		}
	}
}

// Feed hands fetched messages over. Between the last one fed and first, all are settled.
func (r *FetchedStream) Feed(generation, first uint64, messages [][]byte) {
	r.sender.mu.Lock()
	r.sender.client.Feed(r.o, generation, first, messages)
	r.sender.mu.Unlock()
	r.sender.kick()
}

// Lost returns a channel that is closed when what is wanted may have changed.
func (r *FetchedStream) Lost() <-chan struct{} {
	r.sender.mu.Lock()
	defer r.sender.mu.Unlock()
	return r.o.Room()
}

// relayNews is what happened to a relay's messages.
type events struct {
	relay  *FetchedStream
	events []session.Event
}

// news collects what relays have to be told. l.mu is held.
func (l *Sender) news() (all []events) {
	for _, o := range l.client.WithEvents() {
		if r := l.fetched[o]; r != nil {
			all = append(all, events{r, o.Events()})
		}
	}
	return all
}

// deliver calls the relay's hooks. No lock is held.
func (n events) deliver() {
	var settled []store.Range
	for _, e := range n.events {
		if e.Err != nil {
			n.relay.cfg.OnRefused(e.First, e.Err)
		} else {
			settled = append(settled, store.Range{First: e.First, Last: e.Last})
		}
	}
	if len(settled) > 0 {
		n.relay.cfg.OnSettled(settled)
	}
}
