package session

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Level is how far a message has come.
type Level int

// The levels that a Waiter can wait for.
const (
	Received Level = iota + 1 // the receiver has it, or it is settled
	Handled                   // it is settled
)

// Waiter waits until the messages from First to Last have reached Level. Then Err is set, and Done, which needs room
// for a value, receives one. Err is nil, or the *PeerError of a message that was refused, or the reason why the wait
// ended early; then Lacking are the runs that have not reached Level. The zero Deadline is none.
type Waiter struct {
	Level       Level
	First, Last uint64
	Deadline    time.Time
	Done        chan struct{}
	Err         error
	Lacking     []Range
	// Withdrawable: the caller has the messages, and sends them elsewhere if Err is ErrWithdrawn.
	Withdrawable bool
	// Woken, if it is not nil, is signalled when messages of the wait are withdrawn. Back then has those of a wait that
	// goes on, which is about the messages before them from then on; it is read when Woken was signalled, or Done.
	Woken chan<- struct{}
	Back  Range
	At    int // of First among the messages of the call

	refused []uint64
}

// refuse notes that a message was refused. That it could not be handled says that it was received.
func (w *Waiter) refuse(seq uint64, err *PeerError) {
	if w.First <= seq && seq <= w.Last && (w.Level == Handled || CodeOf(err) != wire.Code_CODE_FAILED) {
		w.Err = err
		w.refused = append(w.refused, seq)
	}
}

// finish ends a wait.
func (o *Outbound) finish(w *Waiter, err error) {
	w.Err = err
	if err != nil {
		w.Lacking = o.lacking(w)
	}
	w.Done <- struct{}{}
}

// lacking returns the runs of a wait that have not reached its level: what was refused has not.
func (o *Outbound) lacking(w *Waiter) []Range {
	reached := o.settled.Clone()
	if w.Level == Received {
		reached.Add(1, o.firstUnreceived()-1)
	}
	var runs []Range
	for first, last := range reached.Holes(w.First, w.Last+1) {
		runs = append(runs, Range{First: first, Last: last})
	}
	for _, seq := range w.refused {
		runs = append(runs, Range{First: seq, Last: seq})
	}
	slices.SortFunc(runs, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	return runs
}

// finishReached finishes the waiters whose messages have reached their level.
func (o *Outbound) finishReached() {
	n := 0
	for reached := o.firstUnreceived(); n < len(o.waitReceived) && o.waitReceived[n].Last < reached; n++ {
		o.finish(o.waitReceived[n], o.waitReceived[n].Err)
	}
	o.waitReceived = dropFirst(o.waitReceived, n)
	if len(o.waitHandled) == 0 {
		return
	}
	kept := o.waitHandled[:0]
	for _, w := range o.waitHandled {
		if o.settled.Covers(w.First, w.Last) {
			o.finish(w, w.Err)
		} else {
			kept = append(kept, w)
		}
	}
	clear(o.waitHandled[len(kept):])
	o.waitHandled = kept
}

func dropFirst(ws []*Waiter, n int) []*Waiter {
	if n == 0 {
		return ws
	}
	kept := copy(ws, ws[n:])
	clear(ws[kept:])
	return ws[:kept]
}

// await registers w, or finishes it at once.
func (o *Outbound) await(w *Waiter) {
	switch {
	case o.cause != nil:
		o.finish(w, o.cause)
	case w.Level == Received && w.Last < o.firstUnreceived(), w.Level == Handled && o.settled.Covers(w.First, w.Last):
		o.finish(w, nil)
	case w.Level == Received:
		o.waitReceived = append(o.waitReceived, w)
	default:
		o.waitHandled = append(o.waitHandled, w)
	}
}

// expire fails the waiters whose deadline has passed.
func (o *Outbound) expire(now time.Time, timeout func(*Outbound) error) {
	o.waitReceived = o.expired(o.waitReceived, now, timeout)
	o.waitHandled = o.expired(o.waitHandled, now, timeout)
}

func (o *Outbound) expired(ws []*Waiter, now time.Time, timeout func(*Outbound) error) []*Waiter {
	kept := ws[:0]
	for _, w := range ws {
		if !w.Deadline.IsZero() && now.After(w.Deadline) {
			o.finish(w, timeout(o))
		} else {
			kept = append(kept, w)
		}
	}
	clear(ws[len(kept):])
	return kept
}

// interrupt finishes every waiter with cause, and wakes all callers that wait for room.
func (o *Outbound) interrupt(cause error) {
	for _, waiting := range [...][]*Waiter{o.waitReceived, o.waitHandled} {
		for _, w := range waiting {
			o.finish(w, cause)
		}
	}
	o.waitReceived, o.waitHandled = nil, nil
	o.signalRoom()
	o.signalLine()
}

// Cancel finishes w with context.Canceled if it still waits.
func (o *Outbound) Cancel(w *Waiter) {
	remove := func(ws []*Waiter) []*Waiter {
		if i := slices.Index(ws, w); i >= 0 {
			o.finish(w, context.Canceled)
			return slices.Delete(ws, i, i+1)
		}
		return ws
	}
	o.waitReceived = remove(o.waitReceived)
	o.waitHandled = remove(o.waitHandled)
}
