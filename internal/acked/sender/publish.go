package sender

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// publication is one call of Publish.
type publication struct {
	sender   *Sender // nil: handle says
	named    *Named  // whose it is; nil: of no owner, or of handle
	topic    string
	handle   *Stream // nil: the stream of topic at sender
	batch    *session.Batch
	level    session.Level
	timeout  time.Duration
	deadline time.Time         // zero: not begun, or no end
	stream   *session.Outbound // nil before the first enqueue
	enqueued int               // messages of batch
	turn     *session.Turn     // in the line for room; nil before the call waits
	back     []session.Range   // indices in batch: withdrawn
	woken    chan struct{}     // see session.Waiter; nil: the call waits for one message at a time
	waiting  time.Time         // since when, if that is watched
}

// Publish puts the messages of b into the stream of topic and, unless level is 0, waits until they reached it. It
// returns how many were enqueued: only those will be sent. lacking are the indices in b, in runs, of those that were
// enqueued and have not reached the level. It blocks for at most timeout, or without bound if that is 0, and no longer
// than ctx.
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
			p.back = append(p.back, session.Range{First: uint64(p.enqueued), Last: uint64(p.batch.Len() - 1)})
			p.enqueued = p.batch.Len()
		}
		s.noteWaited(p, err)
		left := waiters
		var unconfirmed error
		if !leaves { // else what it waits for need not hold up the rest
			left, lacking, unconfirmed = p.confirm(ctx, waiters, err != nil)
		}
		if err == nil {
			err = unconfirmed
		}
		return p.enqueued, lacking, p.withdrawn(ctx, left, err)
	}
}

// withdrawn returns what run returns where messages of the call come back: an error that has them, and waits for the
// rest. It is err where none do.
func (p *publication) withdrawn(ctx context.Context, waiters []*session.Waiter, err error) error {
	var left []*session.Waiter
	p.woken = nil // nothing more comes back
	for _, w := range waiters {
		if w.Back.Last > 0 {
			p.takeBack(w)
		}
		select {
		case <-w.Done:
			w.Done <- struct{}{}               // confirm takes it
			if w.Err == session.ErrWithdrawn { //nolint:errorlint // set by package session, never wrapped
				_, _, _ = p.confirm(ctx, []*session.Waiter{w}, false)
				continue
			}
		default:
		}
		left = append(left, w)
	}
	if len(p.back) == 0 {
		return err
	}
	slices.SortFunc(p.back, func(a, b session.Range) int { return cmp.Compare(a.First, b.First) })
	back := &WithdrawnError{Messages: p.back, Deadline: p.deadline, Err: err}
	if len(left) > 0 {
		later := *p // so that other calls need no memory for themselves
		back.wait = func() ([]session.Range, error) {
			_, lacking, err := later.confirm(ctx, left, false)
			return lacking, err
		}
	}
	return back
}

// takeBack notes the messages that were withdrawn from a wait that goes on.
func (p *publication) takeBack(w *session.Waiter) {
	first := uint64(w.At) + w.Back.First - w.First
	p.back = append(p.back, session.Range{First: first, Last: first + w.Back.Last - w.Back.First})
	w.Back = session.Range{}
}

// enqueue puts as many messages into the stream as there is room for. It returns their waiter, which is nil if there is
// none. more tells that the rest has to wait: the call's turn stands in the line for room.
func (p *publication) enqueue() (s *Sender, w *session.Waiter, more bool, err error) {
	s = p.lock()
	w, more, err = s.enqueueLocked(p)
	if !more && p.turn != nil { // also after an error: the line goes on without this call
		p.stream.Leave(p.turn)
	}
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
		p.stream = p.handle.out
		if p.handle.leavesLocked() {
			return nil, false, session.ErrWithdrawn
		}
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
	if n > 0 && p.named != nil {
		p.named.out, p.named.last = p.stream, first+uint64(n)-1
	}
	if more = err == nil && p.enqueued < p.batch.Len(); more && p.turn == nil {
		p.turn = session.NewTurn()
		p.turn.Ready <- struct{}{} // the next enqueue puts it into the line
	}
	if n > 0 && p.level != 0 {
		w = s.waitLocked(p.stream, p.level, session.Range{First: first, Last: first + uint64(n) - 1}, p.deadline)
		w.At = p.enqueued - n
		if w.Withdrawable = p.handle != nil && p.handle.cfg.Elsewhere; w.Withdrawable && p.batch.Len() > 1 {
			if p.woken == nil {
				p.woken = make(chan struct{}, 1)
			}
			w.Woken = p.woken
		}
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
// which of all the messages, counted from 0, have not reached their level. Where messages come back it returns early,
// with the waiters that are left.
func (p *publication) confirm(
	ctx context.Context, waiters []*session.Waiter, abandon bool,
) (left []*session.Waiter, lacking []session.Range, failed error) {
	for i, w := range waiters {
		if abandon {
			p.abandon(w)
		} else {
			select {
			case <-w.Done:
			case <-ctx.Done():
				p.abandon(w)
			case <-p.woken:
				return waiters[i:], lacking, failed
			}
		}
		at := func(r session.Range) session.Range {
			return session.Range{First: uint64(w.At) + r.First - w.First, Last: uint64(w.At) + r.Last - w.First}
		}
		if w.Back.Last > 0 {
			p.takeBack(w)
		}
		switch {
		case w.Err == session.ErrWithdrawn: //nolint:errorlint // set by package session, never wrapped
			p.back = append(p.back, at(session.Range{First: w.First, Last: w.Last}))
			w.Lacking = nil
		case failed == nil:
			failed = w.Err
		}
		for _, r := range w.Lacking {
			lacking = append(lacking, at(r))
		}
		p.pool().Put(w)
	}
	return nil, lacking, failed
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

// WithdrawnError is the error of a Publish whose stream has begun to leave its Sender. What was sent is accounted for
// as with any error.
type WithdrawnError struct {
	Messages []session.Range // indices of those that were not sent, and can be sent elsewhere
	Deadline time.Time       // of the call; zero: none
	Err      error           // what else went wrong; nil: nothing

	wait func() (lacking []session.Range, err error)
}

// Wait waits for those messages of the call that were sent, as Publish does, and returns the indices of those that have
// not reached the level. It is called once, by the caller of Publish, when the others are on their way.
func (e *WithdrawnError) Wait() (lacking []session.Range, err error) {
	if e.wait == nil {
		return nil, nil
	}
	return e.wait()
}

func (e *WithdrawnError) Error() string { return session.ErrWithdrawn.Error() }

// Unwrap returns Err.
func (e *WithdrawnError) Unwrap() error { return e.Err }
