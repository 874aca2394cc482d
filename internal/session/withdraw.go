package session

import (
	"errors"
	"slices"
)

// ErrWithdrawn ends the wait for messages that were never sent, and will not be: their stream leaves its receiver, which first waits for
// what consumers have there.
var ErrWithdrawn = errors.New("buffstreams: the messages were never sent, and their stream leaves its receiver")

// Withdraw takes those messages out of a stream that leaves which were never sent and whose callers have them, and ends their waits. The
// stream goes on behind them as behind what was settled. It wakes those that wait for room.
func (c *Client) Withdraw(o *Outbound) {
	if !o.leaving || o.fetched != nil || o.cause != nil {
		return
	}
	from := max(o.sentTo, o.maxSent)
	var taken []Range
	withdraw := func(ws []*Waiter) []*Waiter {
		return slices.DeleteFunc(ws, func(w *Waiter) bool {
			if !w.Withdrawable || w.First < from {
				return false
			}
			taken = append(taken, Range{First: w.First, Last: w.Last})
			o.finish(w, ErrWithdrawn)
			return true
		})
	}
	o.waitReceived, o.waitHandled = withdraw(o.waitReceived), withdraw(o.waitHandled)
	counting := o.counting
	o.counting = nil // they count where they are sent
	for _, r := range taken {
		o.settle(r.First, r.Last)
	}
	o.counting = counting
	if len(taken) > 0 {
		o.finishReached()
	}
	o.signalLine()
}
