package session

import (
	"context"
	"slices"
	"time"
)

// Level says how far a message must have come before a Waiter is done.
type Level int

// The levels a Waiter can wait for.
const (
	Received Level = iota + 1
	Handled
)

// Waiter waits until a run of messages reached a level. Done receives one value when Err is set for good.
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

// wake finishes the waiters whose messages have come far enough.
func (o *Outbound) wake() {
	n := 0
	for reached := o.reached(); n < len(o.waitReceived) && o.waitReceived[n].Last < reached; n++ {
		o.waitReceived[n].finish(o.waitReceived[n].Err)
	}
	o.waitReceived = drop(o.waitReceived, n)
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

func drop(ws []*Waiter, n int) []*Waiter {
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
	case w.Level == Received && w.Last < o.reached(), w.Level == Handled && o.settled.Covers(w.First, w.Last):
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

// interrupt fails every waiter, and has those look again who wait for room.
func (o *Outbound) interrupt(cause error) {
	for _, waiting := range [...][]*Waiter{o.waitReceived, o.waitHandled} {
		for _, w := range waiting {
			w.finish(cause)
		}
	}
	o.waitReceived, o.waitHandled = nil, nil
	o.release()
}

// Cancel finishes w if it still waits.
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
