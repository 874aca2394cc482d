package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/cenkalti/backoff/v5"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/flush"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// ErrClosed is returned by calls to a Sender that was closed. What was passed to the call was not taken.
var ErrClosed = errors.New("buffstreams: closed")

// ErrTimeout means that messages did not come as far as was asked for in time. They may still.
var ErrTimeout = errors.New("buffstreams: timed out waiting for the peer")

// Config configures a Sender. Every field is needed but TLS and Token.
type Config struct {
	Target   netio.Target
	TLS      *tls.Config // nil: plaintext, with checksums
	Dial     netio.Dial
	Token    func(context.Context) (string, error) // what to show to the peer; nil: nothing
	Insecure bool                                  // Token may go over plaintext

	MaxMessageSize              int // of one encoded message, in bytes
	WindowMessages, WindowBytes int // of each topic
	HandshakeTimeout            time.Duration
	WriteTimeout                time.Duration
	PingAfter, DeadAfter        time.Duration
	ForgetAfter                 time.Duration
	Backoff                     func() backoff.BackOff // called once

	Identity   session.Identity
	NextStream func() uint64 // numbers the streams of the Identity
	Budget     *flow.Budget
	Workers    *flush.Workers
	Ticker     *Ticker
	Logger     watermill.LoggerAdapter
}

// Sender is the sending side to one address: it dials when there is something to send, sends again what was not handled
// after every reconnect, and lives until its Manager is closed. It is safe for concurrent use.
//
// mu guards client, conn and closed. It is never held across I/O or a call of the user's code.
type Sender struct {
	cfg     Config
	flusher *flush.Flusher
	cancel  context.CancelFunc // ends run
	ctx     context.Context
	wg      sync.WaitGroup
	work    chan struct{} // tells run that there is something to send

	mu     sync.Mutex
	client *session.Client
	conn   net.Conn // nil while there is none
	enc    session.Encoder
	closed bool

	late    *TimeoutError // why there is no connection; nil once the peer has welcomed one
	refusal error         // the same, if trying again is of no use for now

	onRefused map[any]func(session.Refused) // never changed, only replaced
	fetched   map[*session.Outbound]*FetchedStream

	segments []session.Segment // the flusher's
	parts    net.Buffers       // the flusher's
}

// New returns a Sender that has not dialed yet. Its owner calls Tick a few times a second, and Close.
func New(cfg Config) *Sender {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Sender{cfg: cfg, ctx: ctx, cancel: cancel, work: make(chan struct{}, 1)}
	l.client = session.NewClient(session.ClientConfig{
		Identity: cfg.Identity, NextStream: cfg.NextStream,
		Window:   session.Window{Messages: cfg.WindowMessages, Bytes: cfg.WindowBytes, Budget: cfg.Budget},
		MaxFrame: session.MaxFrame(cfg.MaxMessageSize), PingAfter: cfg.PingAfter, DeadAfter: cfg.DeadAfter,
		IdleCredit: idleCredit, ForgetAfter: cfg.ForgetAfter, Agent: "watermill-buffstreams",
	})
	l.flusher = flush.New(cfg.Workers, l.flush)
	l.wg.Go(l.run) // ends when ctx is cancelled by close
	return l
}

// Publish hands the messages of b to the stream of topic and, with a level, waits until they have come so far. It returns
// how many were enqueued: only those will be sent. It waits for timeout, or without an end if that is 0; ctx bounds the wait
// besides.
func (l *Sender) Publish(ctx context.Context, topic string, b *session.Batch, level session.Level, timeout time.Duration) (int, error) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0, ErrClosed
	}
	o := l.client.Stream(topic)
	n, first, err := l.enqueue(o, b, 0)
	if n == b.Len() && level == 0 { // needs neither the time nor a wait
		l.mu.Unlock()
		l.kick()
		return n, err
	}
	var deadline time.Time
	if timeout > 0 {
		deadline = time.Now().Add(timeout)
	}
	return l.publish(ctx, o, b, run{n, first, err}, level, deadline)
}

// run is what Enqueue returned.
type run struct {
	n     int
	first uint64
	err   error
}

// publish goes on after the first run was enqueued. mu is held, and released.
func (l *Sender) publish(ctx context.Context, o *session.Outbound, b *session.Batch, r run, level session.Level, deadline time.Time) (enqueued int, err error) {
	var few [1]*session.Waiter
	waits := few[:0]
	for {
		enqueued += r.n
		if r.n > 0 && level != 0 {
			waits = l.register(waits, o, level, session.Range{First: r.first, Last: r.first + uint64(r.n) - 1}, deadline)
		}
		var room <-chan struct{}
		if err = r.err; enqueued < b.Len() && err == nil {
			room = o.Room()
		}
		l.mu.Unlock()
		l.kick()
		if room != nil {
			err = l.await(ctx, room, deadline)
		}
		if room == nil || err != nil {
			if failed := l.confirm(ctx, o, waits, err != nil); err == nil {
				err = failed
			}
			return enqueued, err
		}
		l.mu.Lock()
		if !l.closed {
			o = l.client.Current(o)
		}
		r.n, r.first, r.err = l.enqueue(o, b, enqueued)
	}
}

var waiters = sync.Pool{New: func() any { return &session.Waiter{Done: make(chan struct{}, 1)} }}

// register begins to wait for a run of messages. What is received is a prefix, so that of several runs the last stands for
// all. mu is held.
func (l *Sender) register(waits []*session.Waiter, o *session.Outbound, level session.Level, r session.Range, deadline time.Time) []*session.Waiter {
	w := waiters.Get().(*session.Waiter)
	w.Level, w.First, w.Last, w.Deadline, w.Err = level, r.First, r.Last, deadline, nil
	l.client.Await(o, w)
	return append(waits, w)
}

// confirm waits for every waiter, or only collects them, and returns the first error.
func (l *Sender) confirm(ctx context.Context, o *session.Outbound, waits []*session.Waiter, abandon bool) (failed error) {
	for _, w := range waits {
		if abandon {
			l.abandon(o, w)
			continue
		}
		select {
		case <-w.Done:
		case <-ctx.Done():
			l.abandon(o, w)
		}
		if failed == nil {
			failed = w.Err
		}
		waiters.Put(w)
	}
	return failed
}

// abandon ends a wait.
func (l *Sender) abandon(o *session.Outbound, w *session.Waiter) {
	l.mu.Lock()
	o.Cancel(w)
	l.mu.Unlock()
	<-w.Done
}

// await waits for room in a window.
func (l *Sender) await(ctx context.Context, room <-chan struct{}, deadline time.Time) error {
	var expired <-chan time.Time
	if !deadline.IsZero() {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-room:
		return nil
	case <-expired:
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.timeoutError()
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ctx.Done():
		return ErrClosed
	}
}

// Flush waits until everything enqueued so far for a topic was received, or ctx is done.
func (l *Sender) Flush(ctx context.Context, topic string) error {
	l.mu.Lock()
	o := l.client.Find(topic)
	if o == nil || o.Unreceived() == 0 || l.closed {
		defer l.mu.Unlock()
		if o != nil && o.Unreceived() > 0 {
			return ErrClosed
		}
		return nil
	}
	last := o.Last()
	waits := l.register(nil, o, session.Received, session.Range{First: last, Last: last}, time.Time{})
	l.mu.Unlock()
	l.kick()
	return l.confirm(ctx, o, waits, false)
}

// Unreceived is the number of messages for a topic that the peer is not known to have.
func (l *Sender) Unreceived(topic string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.client.Find(topic); o != nil {
		return o.Unreceived()
	}
	return 0
}

// Pending is the number of messages that are not settled, over all topics.
func (l *Sender) Pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.client.Pending()
}

// OnRefused sets what owner wants to be called for each message that the peer refuses; nil ends that. It is called from
// one goroutine with no lock held. It may block, but that holds up this link's acks.
func (l *Sender) OnRefused(owner any, f func(session.Refused)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	hooks := maps.Clone(l.onRefused) // whoever calls them holds the old map
	if hooks == nil {
		hooks = map[any]func(session.Refused){}
	}
	if hooks[owner] = f; f == nil {
		delete(hooks, owner)
	}
	l.onRefused = hooks
}

// Connected tells whether the peer has welcomed the current connection and takes messages.
func (l *Sender) Connected() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil && l.client.Established() && !l.client.Draining()
}

// kick gets going whoever has to send: the flusher, or run where there is no connection.
func (l *Sender) kick() {
	l.cfg.Ticker.wake()
	l.flusher.Kick()
}

// tick does what is due, and tells whether something is under way.
func (l *Sender) Tick(now time.Time) (busy bool) {
	l.mu.Lock()
	err := l.client.Tick(now, l.timeoutError())
	conn, due := l.conn, l.client.Due() || l.client.Untidy()
	busy = l.client.Busy()
	l.mu.Unlock()
	if err != nil && conn != nil {
		_ = conn.Close() // the read loop ends with it
	}
	if due {
		l.flusher.Kick()
	}
	return busy
}

// close ends the link at once: what is not received is lost to it. Publish calls that wait return ErrClosed.
func (l *Sender) Close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		l.wg.Wait()
		return
	}
	l.closed = true
	l.client.Abort(ErrClosed)
	conn := l.conn
	l.mu.Unlock()
	l.cancel()
	if conn != nil {
		_ = conn.Close()
	}
	l.wg.Wait()
	l.flusher.Close()
}

// TimeoutError is the ErrTimeout of a wait while there was no connection, with the reason for that.
type TimeoutError struct{ Cause error }

func (e *TimeoutError) Error() string { return fmt.Sprintf("%v: %v", ErrTimeout, e.Cause) }

// Is matches ErrTimeout.
func (e *TimeoutError) Is(target error) bool { return target == ErrTimeout }

func (e *TimeoutError) Unwrap() error { return e.Cause }

// overdue is the error of a wait that takes too long. l.mu is held.
func (l *Sender) timeoutError() error {
	if l.late != nil {
		return l.late
	}
	return ErrTimeout
}

// enqueue is the client's Enqueue, unless the last attempt to connect was refused for good and messages wait for the next
// already: then it takes nothing more, so that a caller who tries again piles up no copies. l.mu is held.
func (l *Sender) enqueue(o *session.Outbound, b *session.Batch, i int) (taken int, first uint64, err error) {
	if l.refusal != nil && l.client.Pending() > 0 {
		return 0, 0, l.refusal
	}
	return l.client.Enqueue(o, b, i)
}
