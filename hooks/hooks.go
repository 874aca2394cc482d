// Package hooks declares what a Manager, and the outbox of the module storage, tell those who watch them: metrics,
// traces, tests. A Hook implements any of the interfaces below, each of which has one method with one argument:
//
//	type lost struct{}
//
//	func (lost) OnLost(e hooks.Lost) { log.Println("lost", e.Address, e.Err) }
//
//	buffstreams.ManagerConfig{Hooks: []hooks.Hook{lost{}}}
//
// Hooks are called for each flush, frame, or run of messages, and for a single message only where it fails. They are
// called with no lock held, on the goroutine that does the work: a method that blocks holds up its connection,
// subscription or call, and nothing else. They are called at the same time from many goroutines. A panic ends nothing;
// a Manager logs it. Interfaces may be added, and fields to their arguments.
//
// In the arguments, Address is that of a peer, as topics have it (host:port, tls://host:port, unix:///path; of package
// pool, as it was configured), Listener one that is listened at, in the same form, Topic the name on the wire, and
// Bytes are those of encoded messages.
package hooks

import (
	"slices"
	"time"
)

// Hook is anything that implements at least one of the interfaces of this package. NewManager refuses any other, as it
// would never be called.
type Hook any

// Of returns those hooks that implement an interface, in their order.
func Of[T any](all []Hook) []T {
	var found []T
	for _, h := range all {
		if t, ok := h.(T); ok {
			found = append(found, t)
		}
	}
	return slices.Clip(found)
}

// Dialed is an attempt to connect, with the TLS handshake.
type Dialed struct {
	Address string
	Took    time.Duration
	Err     error // nil: there is a connection
}

// DialedHook is told of every attempt of a Publisher's side to connect.
type DialedHook interface{ OnDialed(e Dialed) }

// Connected is a connection that its peer has welcomed.
type Connected struct {
	Address string
	Took    time.Duration // since the attempt began
}

// ConnectedHook is told when a Publisher's side can send to an address.
type ConnectedHook interface{ OnConnected(e Connected) }

// Lost is a connection that has ended, whichever side ended it.
type Lost struct {
	Address  string // of the peer
	Listener string // where it was accepted; empty: it was dialed
	Welcomed bool   // whether the greeting was over: a connection that was accepted was
	Lasted   time.Duration
	Err      error // nil or io.EOF: the peer has closed it
}

// LostHook is told of the end of every connection that was dialed, or accepted and welcomed.
type LostHook interface{ OnLost(e Lost) }

// Accepted is a connection that a listener has welcomed.
type Accepted struct {
	Listener  string
	Peer      string // its address
	Principal string // that Authenticate has returned
	Agent     string // the peer's software, as it says
}

// AcceptedHook is told of peers that a listener welcomes.
type AcceptedHook interface{ OnAccepted(e Accepted) }

// Refused is a connection that a listener has not welcomed: it was over a limit, failed to authenticate, or did not
// speak the protocol.
type Refused struct {
	Listener string
	Peer     string
	Err      error
}

// RefusedHook is told of peers that a listener refuses. Of a flood of connections over the limits it is told in part.
type RefusedHook interface{ OnRefused(e Refused) }

// Moved is a stream that goes on at another address of its route.
type Moved struct {
	Topic    string
	From, To string // addresses
	Messages int    // that were not settled, and move
	// MayRepeat is how many of them the receiver at From may have handled: 0 if it has given them back, otherwise it is
	// gone or silent.
	MayRepeat int
	// Tenure counts the places that the stream has had, To included; 0 if the peer does not know of that.
	Tenure uint64
}

// MovedHook is told of streams that move.
type MovedHook interface{ OnMoved(e Moved) }

// AddressState is another state of an address that is published to.
type AddressState struct {
	Address string // host:port, tls://host:port or unix:///path
	State   string // as in buffstreams.AddressStats
	Since   time.Time
	Err     error // why there is no connection; nil: there is one, or none was tried
}

// AddressStateHook is told how far addresses are that are published to, by a goroutine of that address.
type AddressStateHook interface{ OnAddressState(e AddressState) }

// Resolved is a call of a Resolver.
type Resolved struct {
	Topic     string
	Addresses int // in its answer
	Took      time.Duration
	Err       error
}

// ResolvedHook is told of what Resolvers answer.
type ResolvedHook interface{ OnResolved(e Resolved) }

// Forgotten says that a listener has forgotten publishers that are away, or that one has returned and is not
// remembered: what that one sends again can be delivered twice.
type Forgotten struct {
	Listener string
	Streams  int  // that were forgotten, or have returned
	Returned bool // they have returned
}

// ForgottenHook is told of publishers that listeners forget.
type ForgottenHook interface{ OnForgotten(e Forgotten) }
