package pool

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
type RelayConfig struct {
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
type Relay struct {
	link *Link
	cfg  RelayConfig
	o    *session.Outbound
}

// Relay begins a relay. End ends it.
func (l *Link) Relay(cfg RelayConfig) (*Relay, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	r := &Relay{link: l, cfg: cfg, o: l.client.Relay(cfg.Identity, cfg.Stream, cfg.Topic, cfg.Base)}
	if l.relays == nil {
		l.relays = map[*session.Outbound]*Relay{}
	}
	l.relays[r.o] = r
	return r, nil
}

// End takes the relay off its link.
func (r *Relay) End() {
	r.link.mu.Lock()
	defer r.link.mu.Unlock()
	delete(r.link.relays, r.o)
	r.link.client.EndRelay(r.o)
}

// Announce says that the messages below next can be fetched: the link connects if it has to.
func (r *Relay) Announce(next uint64) {
	r.link.mu.Lock()
	r.link.client.Announce(r.o, next)
	r.link.mu.Unlock()
	r.link.kick()
}

// Quiet tells that there is no connection and nothing waits, as far as was announced: Next would wait until the message
// with the returned sequence is.
func (r *Relay) Quiet() (next uint64, quiet bool) {
	r.link.mu.Lock()
	defer r.link.mu.Unlock()
	return r.o.Quiet()
}

// Next waits until messages are wanted, and returns the sequence of the first. generation goes with them into Feed.
// It returns ok false when the relay has gone quiet.
func (r *Relay) Next(ctx context.Context) (from, generation uint64, ok bool, err error) {
	for {
		r.link.mu.Lock()
		err := r.o.Err()
		from, generation, ok := r.o.Wants()
		_, quiet := r.o.Quiet()
		room := r.o.Room()
		r.link.mu.Unlock()
		if err != nil || ok || quiet {
			return from, generation, ok, err
		}
		select {
		case <-room:
		case <-ctx.Done():
			return 0, 0, false, ctx.Err()
		case <-r.link.ctx.Done():
			return 0, 0, false, ErrClosed
		}
	}
}

// Feed hands fetched messages over. Between the last one fed and first, all are settled.
func (r *Relay) Feed(generation, first uint64, messages [][]byte) {
	r.link.mu.Lock()
	r.link.client.Feed(r.o, generation, first, messages)
	r.link.mu.Unlock()
	r.link.kick()
}

// Lost returns a channel that is closed when what is wanted may have changed.
func (r *Relay) Lost() <-chan struct{} {
	r.link.mu.Lock()
	defer r.link.mu.Unlock()
	return r.o.Room()
}

// relayNews is what happened to a relay's messages.
type relayNews struct {
	relay  *Relay
	events []session.Event
}

// news collects what relays have to be told. l.mu is held.
func (l *Link) news() (all []relayNews) {
	for _, o := range l.client.Relays() {
		if r := l.relays[o]; r != nil {
			all = append(all, relayNews{r, o.Events()})
		}
	}
	return all
}

// deliver calls the relay's hooks. No lock is held.
func (n relayNews) deliver() {
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
