package peers

import (
	"errors"
	"time"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/route"
)

const (
	loopback = "127.0.0.1:0"
	patience = 10 * time.Second
)

// Setup is what a turn asks of a peer. The zero value is one sender, one topic, one unacked message.
type Setup struct {
	Size     int    `json:"size"`      // of a payload, in bytes
	Senders  int    `json:"senders"`   // how many goroutines call Send, each with numbers of its own
	InFlight int    `json:"in_flight"` // unacked messages of a subscription
	Metadata int    `json:"metadata"`  // entries of each message
	Topics   int    `json:"topics"`    // above 1, sender i sends to topic i modulo Topics
	Router   bool   `json:"router"`    // receive through a message.Router with a handler that does nothing else
	Name     string `json:"name"`      // of the topic: no two turns share one at a broker
	Dir      string `json:"dir"`       // for a broker that stores on disk
	Broker   string `json:"broker"`    // address of one that runs already; empty starts it with the receiving end
	Heap     int    `json:"heap"`      // what the process holds besides, in bytes

	// Of this library alone.
	Fixed     bool         `json:"fixed"`     // the topic has the address in it; otherwise a Resolver finds it
	Addresses int          `json:"addresses"` // so many receiving ends, among which Policy chooses; 0 means 1
	Policy    route.Policy `json:"policy"`
	Hooks     bool         `json:"hooks"` // a hook at each end that counts whatever there is to be told

	Keys  int           `json:"keys"`   // above 0, the message has an order key, one of so many in turn
	Batch int           `json:"batch"`  // above 0, a call of the handler gets up to so many messages
	ACall time.Duration `json:"a_call"` // of computing, which each call of the handler takes

	// Slow is how long the handler of the last of several topics takes until Hurry is closed; 0 means no time.
	Slow  time.Duration   `json:"slow"`
	Hurry <-chan struct{} `json:"-"`
}

// Receiver is a receiving end. It enters into the tally what arrives until it is closed.
type Receiver interface {
	// Address is what a sending end in another process dials.
	Address() string
	Close() error
}

// Sender is a sending end.
type Sender interface {
	// Send sends a batch, and returns when the peer's guarantee says that it may. The payloads are the caller's again,
	// unless the peer keeps them. Each sender is one goroutine.
	Send(sender int, batch [][]byte) error
	// Flush puts everything on its way that would not go by itself.
	Flush() error
	// Close is called once everything has arrived.
	Close() error
}

// eager is part of senders that hold nothing back.
type eager struct{}

func (eager) Flush() error { return nil }

// Peer is one of those that are compared.
type Peer struct {
	Name      string
	Guarantee string // what has happened when Send returns
	Settings  string // as measured
	Receive   func(Setup, *measure.Tally) (Receiver, error)
	Dial      func(Setup, Receiver) (Sender, error)
	// Window is how many messages may be on their way where the peer would otherwise let its sender run away, until it
	// drops messages or fills the memory. 0 means that it holds back its sender by itself.
	Window uint64
	// Unordered peers let messages of one sender overtake one another.
	Unordered bool
}

// Ordered reports whether a sender's messages must arrive in order.
func (p Peer) Ordered(s Setup) bool { return !p.Unordered && !s.Router && s.Addresses < 2 }

// Remote is a receiving end in another process.
type Remote string

// Address implements Receiver.
func (r Remote) Address() string { return string(r) }

// Close implements Receiver; it has nothing to close.
func (Remote) Close() error { return nil }

// errLocal refuses what two processes cannot do.
var errLocal = errors.New("peers: this peer works only inside one process")

// All lists the peers.
func All() []Peer {
	return []Peer{
		Enqueued, Received, Handled, Bridge, Plain,
		GoChannel, GoChannelBlock, NATSCore, JetStream, JetStreamAsync, HTTP, Redis,
		NATSEmbedded, JetStreamEmbedded, JetStreamFeed, GRPC, NATSGo, BuffStreams, Bare, Frames, BigFrames, PingPong,
	}
}

// Find returns the peer of that name.
func Find(name string) (Peer, bool) {
	for _, p := range All() {
		if p.Name == name {
			return p, true
		}
	}
	return Peer{}, false
}

// ends closes one thing after the other.
type ends []func() error

func (e ends) Close() error {
	var errs []error
	for _, f := range e {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// at is a receiving end at an address.
type at struct {
	address string
	ends
}

func (a at) Address() string { return a.address }
