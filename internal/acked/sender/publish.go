package sender

import (
	"context"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// publication is one call of Publish.
type publication struct {
	sender   *Sender // nil: handle says
	topic    string
	handle   *Stream // nil: the stream of topic at sender
	batch    *session.Batch
	level    session.Level
	timeout  time.Duration
	deadline time.Time         // zero: not begun, or no end
	stream   *session.Outbound // nil before the first enqueue
	enqueued int               // messages of batch
	turn     *session.Turn     // in the line for room; nil before the call waits
	back     []session.Range   // indices in batch: withdrawn, in order
	waiting  time.Time         // since when, if that is watched
}

// Publish puts the messages of b into the stream of topic and, unless level is 0, waits until they reached it. It
// returns how many were enqueued: only those will be sent. lacking are the indices in b, in runs, of those that were
// enqueued and have not reached the level. It blocks for at most timeout, or without bound if that is 0, and no longer than
// ctx.
func (s *Sender) Publish(
	ctx context.Context, topic string, b *session.Batch, level session.Level, timeout time.Duration,
) (enqueued int, lacking []session.Range, err error) {
	p := &publication{sender: s, topic: topic, batch: b, level: level, timeout: timeout}
	return p.run(ctx)
}

// Publish is Sender.Publish for a Stream. A call that waits moves with it.
func (st *Stream) Publish(
	ctx context.Context, b *session.Batch, level session.Level, timeout time.Duration,
) (enqueued int, lacking []session.Range, err error) {
	p := &publication{handle: st, topic: st.cfg.Topic, batch: b, level: level, timeout: timeout}
	return p.run(ctx)
}

func (p *publication) beginDeadline() {
	if p.timeout > 0 && p.deadline.IsZero() {
		p.deadline = time.Now().Add(p.timeout)
	}
}

// lock locks the Sender that has the stream now, and returns it.
func (p *publication) lock() *Sender {
	if p.handle != nil {
		return p.handle.lock()
	}
	p.sender.mu.Lock()
	return p.sender
}

// run is Publish.
func (p *publication) run(ctx context.Context) (enqueued int, lacking []session.Range, err error) {
	if p.level != 0 {
		p.beginDeadline()
	}
	var one [1]*session.Waiter
	waiters := one[:0] // one for each run of sequences; they are not in p so that they stay on the stack
	for {
		s, w, more, err := p.enqueue()
		leaves := err == session.ErrWithdrawn //nolint:errorlint // enqueueLocked returns it as it is
		if w != nil {
			waiters = append(waiters, w)
		} else if !more && !leaves && p.turn == nil { // the call waits for nothing, and has not waited
			return p.enqueued, nil, err
		}
		if more {
			p.beginDeadline()
			if err = p.awaitRoom(ctx, s); err == nil {
				continue
			}
		}
		if leaves {
			err = nil
		}
		s.noteWaited(p, err)
		lacking, unconfirmed := p.confirm(ctx, waiters, err != nil)
		if err == nil {
			err = unconfirmed
		}
		if leaves {
			p.back = append(p.back, session.Range{First: uint64(p.enqueued), Last: uint64(p.batch.Len() - 1)})
			p.enqueued = p.batch.Len()
		}
		if len(p.back) > 0 {
			err = &WithdrawnError{Messages: p.back, Deadline: p.deadline, Err: err}
		}
		return p.enqueued, lacking, err
	}
}

// enqueue puts as many messages into the stream as there is room for. It returns their waiter, which is nil if there is
// none. more tells that the rest has to wait: the call's turn stands in the line for room.
func (p *publication) enqueue() (s *Sender, w *session.Waiter, more bool, err error) {
	s = p.lock()
	w, more, err = s.enqueueLocked(p)
	s.mu.Unlock()
	s.kick()
	return s, w, more, err
}

func (s *Sender) enqueueLocked(p *publication) (w *session.Waiter, more bool, err error) {
	switch {
	case s.closed:
		return nil, false, ErrClosed
	case p.handle != nil:
		if p.handle.out.Err() != nil {
			p.handle.beginLocked(s)
		}
		if p.handle.leavesLocked() {
			if p.turn != nil {
				p.handle.out.Leave(p.turn)
			}
			return nil, false, session.ErrWithdrawn
		}
		p.stream = p.handle.out
	case p.stream == nil:
		p.stream = s.client.Stream(p.topic)
	default:
		p.stream = s.client.Current(p.stream)
	}
	// After a definite refusal nothing joins the messages that wait: a caller that tries again would pile up copies.
	if s.refusal != nil && s.client.Pending() > 0 {
		return nil, false, s.refusal
	}
	n, first, err := s.client.Enqueue(p.stream, p.batch, p.enqueued, p.turn)
	p.enqueued += n
	if more = err == nil && p.enqueued < p.batch.Len(); more && p.turn == nil {
		p.turn = session.NewTurn()
		p.turn.Ready <- struct{}{} // the next enqueue puts it into the line
	}
	if n > 0 && p.level != 0 {
		w = s.waitLocked(p.stream, p.level, session.Range{First: first, Last: first + uint64(n) - 1}, p.deadline)
		w.Withdrawable = p.handle != nil && p.handle.cfg.Elsewhere
	}
	return w, more, err
}

func newWaiter() any { return &session.Waiter{Done: make(chan struct{}, 1)} }

// waiterPool is for all Senders.
var waiterPool = sync.Pool{New: newWaiter}

// waitLocked begins to wait for a run of messages. confirm ends the wait.
func (s *Sender) waitLocked(
	o *session.Outbound, level session.Level, r session.Range, deadline time.Time,
) *session.Waiter {
	w := s.waiters.Get().(*session.Waiter) //nolint:forcetypeassert // the pool holds nothing else
	*w = session.Waiter{Level: level, First: r.First, Last: r.Last, Deadline: deadline, Done: w.Done}
	s.client.Await(o, w)
	return w
}

// awaitRoom waits until there may be room for the rest of a call. After an error the call is out of the line.
func (p *publication) awaitRoom(ctx context.Context, s *Sender) error {
	if p.waiting.IsZero() && s.cfg.Hooks.WatchesWindow() {
		p.waiting = time.Now()
	}
	var expired <-chan time.Time
	if !p.deadline.IsZero() {
		timer := time.NewTimer(time.Until(p.deadline))
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-p.turn.Ready:
		return nil
	case <-expired:
		return p.leaveLine(nil)
	case <-ctx.Done():
		return p.leaveLine(ctx.Err())
	case <-s.ctx.Done():
		if p.handle != nil && p.handle.Sender() != s {
			return nil
		}
		return p.leaveLine(ErrClosed)
	}
}

// leaveLine ends the wait of a call for room. It returns err, or, if that is nil, the error of a time-out.
func (p *publication) leaveLine(err error) error {
	s := p.lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.timeoutErrorLocked(p.stream)
	}
	p.stream.Leave(p.turn)
	return err
}

// confirm waits until every waiter is done, or ends them all at once if abandon is set. It returns the first error, and
// which of all the messages, counted from 0, have not reached their level.
func (p *publication) confirm(
	ctx context.Context, waiters []*session.Waiter, abandon bool,
) (lacking []session.Range, failed error) {
	count := uint64(0)
	for _, w := range waiters {
		if abandon {
			p.abandon(w)
		} else {
			select {
			case <-w.Done:
			case <-ctx.Done():
				p.abandon(w)
			}
		}
		switch {
		case w.Err == session.ErrWithdrawn: //nolint:errorlint // set by package session, never wrapped
			p.back = append(p.back, session.Range{First: count, Last: count + w.Last - w.First})
			w.Lacking = nil
		case failed == nil:
			failed = w.Err
		}
		for _, r := range w.Lacking {
			lacking = append(lacking, session.Range{First: count + r.First - w.First, Last: count + r.Last - w.First})
		}
		count += w.Last - w.First + 1
		p.pool().Put(w)
	}
	return lacking, failed
}

// abandon ends a wait. The messages stay in their stream.
func (p *publication) abandon(w *session.Waiter) {
	s := p.lock()
	p.stream.Cancel(w)
	s.mu.Unlock()
	<-w.Done
}

func (p *publication) pool() *sync.Pool {
	if p.handle != nil {
		return p.handle.Sender().waiters
	}
	return p.sender.waiters
}

// kick wakes the flusher, which starts run if there is no connection.
func (s *Sender) kick() {
	s.cfg.Ticker.wake()
	s.flusher.Kick()
}

// WithdrawnError is the error of a Publish whose stream has begun to leave its Sender. What was sent is accounted for as with any error.
type WithdrawnError struct {
	Messages []session.Range // indices of those that were not sent, and can be sent elsewhere
	Deadline time.Time       // of the call; zero: none
	Err      error           // what else went wrong; nil: nothing
}

func (e *WithdrawnError) Error() string { return session.ErrWithdrawn.Error() }

// Unwrap returns Err.
func (e *WithdrawnError) Unwrap() error { return e.Err }
