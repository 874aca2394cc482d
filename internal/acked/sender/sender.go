// Package sender is the sending half of the acked protocol. A message goes from Publish (publish.go) into its stream
// (package session), and from there onto the connection (conn.go). The acks come back through conn.go and the session,
// which wakes the Publish that waits. Streams whose messages a store keeps have their own way in (fetched.go).
package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/flush"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// ErrClosed is returned by calls to a Sender that was closed. What was passed to the call was not taken.
var ErrClosed = errors.New("buffstreams: closed")

// Config configures a Sender. Every field is needed but TLS, Token, Insecure, MoveAfter, Workers,
// Mover, Changed, Refused and Hooks.
type Config struct {
	Target   netio.Target
	TLS      *tls.Config // nil: plaintext, with checksums
	Dial     netio.Dial
	Token    func(context.Context) (string, error) // returns what to show to the peer; nil: nothing
	Insecure bool                                  // Token may go over plaintext

	MaxMessageSize              int // of one encoded message, in bytes
	WindowMessages, WindowBytes int // of each topic
	HandshakeTimeout            time.Duration
	WriteTimeout                time.Duration
	PingAfter, DeadAfter        time.Duration          // of silence
	MoveAfter                   time.Duration          // of silence, Streams may leave; not positive: what was sent never moves
	ForgetAfter                 time.Duration          // an idle stream is ended; 0: never
	Backoff                     func() backoff.BackOff // between connections; called once

	Identity   session.Identity
	NextStream func() uint64 // numbers the streams of the Identity
	Budget     *flow.Budget
	Workers    *flush.Workers // nil: a new goroutine for each flush
	Ticker     *Ticker        // wakes when something is to be sent
	Mover      *Mover         // of all Senders between which Streams move; nil: none do
	Changed    func(*Sender)  // after a change of State, with no lock held, and one at a time; it must not block for long
	Logger     watermill.LoggerAdapter
	Refused    func(session.Refused) // for what no function of OnRefused answers for; nil: the log alone
	Address    string                // for Hooks
	Hooks      *hook.Set             // nil: none
}

// Sender is the sending side to one address: it dials when there is something to send, sends again what was not handled
// after every reconnect, and lives until its owner closes it. It is safe for concurrent use.
type Sender struct {
	cfg      Config
	flusher  *flush.Flusher  // runs flush
	reporter *flush.Flusher  // runs ReportRefused for flush, which must not wait for hooks
	teller   *flush.Flusher  // runs tellEvents: what reports must not wait for Config.Hooks
	mover    *flush.Flusher  // runs settleMoves
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup  // run
	waiters  *sync.Pool      // of *session.Waiter
	backoff  backoff.BackOff // of run; nil before the first
	avoid    []string        // of run: addresses of connections that got nowhere, the last one last
	lines    lines           // what was logged of the connection and of waits

	// mu guards the fields below, client's streams included. It is not held across I/O or a call of the user's code.
	mu          sync.Mutex
	client      *session.Client
	conn        net.Conn // nil while there is none
	givenUp     net.Conn // conn, if nothing more is written to it
	enc         session.Encoder
	closed      bool
	running     bool          // run is under way, or pause will start it
	pause       *time.Timer   // before the next connection; nil: there is none
	stage       string        // what is done to connect, while there is no connection
	unreachable *TimeoutError // why there is no connection; nil once a peer has welcomed one
	refusal     error         // the same, if another attempt is of no use for now
	onRefused   map[any]func(session.Refused) bool
	fetched     map[*session.Outbound]*FetchedStream
	conditions  []*condition // callers that wait
	status      status
	events      []func(*hook.Set) // for tellEvents
	streams     map[*Stream]struct{}
	kept        bool // by Dial
	retired     bool // see Retire
	failing     bool // the last attempt to connect has failed
	changed     bool // Config.Changed is to be called

	reporting sync.Mutex // held while hooks are called, so that they are called one after another; taken before mu

	// Memory of flush.
	segments []session.Segment
	parts    net.Buffers
}

// New returns a Sender that has not dialed yet. Its owner calls Tick a few times a second, and Close.
func New(cfg Config) *Sender {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Sender{cfg: cfg, ctx: ctx, cancel: cancel, waiters: &waiterPool}
	s.client = session.NewClient(session.ClientConfig{
		Identity: cfg.Identity, NextStream: cfg.NextStream,
		Window:   session.Window{Messages: cfg.WindowMessages, Bytes: cfg.WindowBytes, Budget: cfg.Budget},
		MaxFrame: session.MaxFrame(cfg.MaxMessageSize), PingAfter: cfg.PingAfter, DeadAfter: cfg.DeadAfter,
		MoveAfter: cfg.MoveAfter, IdleCredit: idleCredit, ForgetAfter: cfg.ForgetAfter, Agent: "watermill-buffstreams",
		Clock: time.Now, Observe: cfg.Hooks.WatchesSettled(),
	})
	s.flusher = flush.New(cfg.Workers, s.flush)
	s.reporter = flush.New(cfg.Workers, s.ReportRefused)
	s.teller = flush.New(cfg.Workers, s.tellEvents)
	s.mover = flush.New(nil, s.settleMoves) // it is needed seldom, but beside flusher: each address would keep two workers
	return s
}

// Pending is the number of messages that are not settled, over all topics.
func (s *Sender) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client.Pending()
}

// Connected tells whether the peer has welcomed the current connection and takes messages.
func (s *Sender) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil && s.client.Established() && !s.client.Draining()
}

// OnRefused sets the function to call for each message that the peer refuses, one for each owner; nil removes it, after
// it was called for every refusal that is known. It tells whether it answers for the message. It is called for one
// message at a time, without mu. While it blocks, no ack is taken, or nothing that Tick does is done.
func (s *Sender) OnRefused(owner any, f func(session.Refused) bool) {
	if f == nil {
		s.ReportRefused()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	owners := maps.Clone(s.onRefused) // the reader calls those of the old map
	if owners == nil {
		owners = map[any]func(session.Refused) bool{}
	}
	if owners[owner] = f; f == nil {
		delete(owners, owner)
	}
	s.onRefused = owners
}

// Tick does what is due at now: pings, time-outs of Publish, credit that idle streams give back. It tells whether more
// may be due before long. It does not block.
func (s *Sender) Tick(now time.Time) (busy bool) {
	s.mu.Lock()
	err := s.client.Tick(now, s.timeoutErrorLocked)
	conn, due := s.conn, s.client.Due() || s.client.FreeDue()
	busy = s.client.Busy() || len(s.conditions) > 0
	s.checkLocked()
	s.tickStreamsLocked(now)
	refused, owners := s.client.Refused(), s.onRefused
	waiting := s.longWaitLocked(now)
	s.mu.Unlock()
	waiting.log(s)
	for _, r := range refused {
		s.report(r, owners)
	}
	if err != nil && conn != nil {
		_ = conn.Close() // serve returns
	}
	if due {
		s.flusher.Kick()
	}
	return busy
}

// Retire has no stream move to the Sender any more, which is to be closed. It returns false, and changes nothing, if
// the Sender has a Stream, or messages that are not settled; or, without untold, if the peer has still to be told of
// streams that moved without its answer, and is not known to be gone: it would go on to hand out what it has of them.
func (s *Sender) Retire(untold bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client.Pending() > 0 || len(s.streams) > 0 || !untold && s.client.Left() && !s.client.Gone() {
		return false
	}
	s.retired = true
	return true
}

// Close ends the Sender and waits for its goroutines. It tells the peer of the streams of which everything is settled,
// for which it takes finishTimeout at most, and returns the messages that no receiver is known to hold: they are lost
// to it. Calls of Publish that wait return ErrClosed. Later calls wait for the end and return nothing.
func (s *Sender) Close() (left []session.Leftover) {
	if conn, released, first := s.release(&left); first {
		if released {
			s.finish(conn)
		}
		s.abort()
		if conn != nil {
			_ = conn.Close()
		}
	}
	s.wg.Wait()
	s.flusher.Close()
	s.mover.Close()
	s.reporter.Close()
	s.ReportRefused()
	s.teller.Close()
	return left
}

// release refuses further calls, notes what is left while the receiver is there that may hold it, and ends the streams
// of which the receiver has everything: it needs to remember them no longer than until all is handled. first is false
// if the Sender was closed before.
func (s *Sender) release(left *[]session.Leftover) (conn net.Conn, released, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, false
	}
	s.closed = true
	s.status.set(Idle)
	s.cancel()
	if s.pause != nil {
		s.pause.Stop()
	}
	*left = s.client.Leftovers()
	s.giveUpLocked(ErrClosed)                                         // a stream that has ended meets every condition
	released = s.client.ReleaseDelivered(ErrClosed) || s.client.Due() // the ends of streams may wait to be written
	return s.conn, released && s.conn != nil, true
}

// abort ends every stream and wait.
func (s *Sender) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client.Abort(ErrClosed)
	s.giveUpLocked(ErrClosed)
}
