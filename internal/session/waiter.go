package session

import (
	"context"
	"slices"
	"time"
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
// ended early. The zero Deadline is none.
type Waiter struct {
	Level       Level
	First, Last uint64
	Deadline    time.Time
	Done        chan struct{}
	Err         error
}

func (w *Waiter) finish(err error) {
	w.Err = err
	w.Done <- struct{}{}
}

// finishReached finishes the waiters whose messages have reached their level.
func (o *Outbound) finishReached() {
	n := 0
	for reached := o.firstUnreceived(); n < len(o.waitReceived) && o.waitReceived[n].Last < reached; n++ {
		o.waitReceived[n].finish(o.waitReceived[n].Err)
	}
	o.waitReceived = dropFirst(o.waitReceived, n)
	if len(o.waitHandled) == 0 {
		return
	}
	kept := o.waitHandled[:0]
	for _, w := range o.waitHandled {
		if o.settled.Covers(w.First, w.Last) {
			w.finish(w.Err)
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
		w.finish(o.cause)
	case w.Level == Received && w.Last < o.firstUnreceived(), w.Level == Handled && o.settled.Covers(w.First, w.Last):
		w.finish(nil)
	case w.Level == Received:
		o.waitReceived = append(o.waitReceived, w)
	default:
		o.waitHandled = append(o.waitHandled, w)
	}
}

// expire fails the waiters whose deadline has passed.
func (o *Outbound) expire(now time.Time, err error) {
	o.waitReceived = expired(o.waitReceived, now, err)
	o.waitHandled = expired(o.waitHandled, now, err)
}

func expired(ws []*Waiter, now time.Time, err error) []*Waiter {
	kept := ws[:0]
	for _, w := range ws {
		if !w.Deadline.IsZero() && now.After(w.Deadline) {
			w.finish(err)
		} else {
			kept = append(kept, w)
		}
	}
	clear(ws[len(kept):])
	return kept
}

// interrupt finishes every waiter with cause, and wakes the callers that wait for room.
func (o *Outbound) interrupt(cause error) {
	for _, waiting := range [...][]*Waiter{o.waitReceived, o.waitHandled} {
		for _, w := range waiting {
			w.finish(cause)
		}
	}
	o.waitReceived, o.waitHandled = nil, nil
	o.signalRoom()
}

// Cancel finishes w with context.Canceled if it still waits.
func (o *Outbound) Cancel(w *Waiter) {
	remove := func(ws []*Waiter) []*Waiter {
		if i := slices.Index(ws, w); i >= 0 {
			w.finish(context.Canceled)
			return slices.Delete(ws, i, i+1)
		}
		return ws
	}
	o.waitReceived = remove(o.waitReceived)
	o.waitHandled = remove(o.waitHandled)
}
