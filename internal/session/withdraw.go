package session

import (
	"errors"
	"slices"
)

// ErrWithdrawn ends the wait for messages that were never sent, and will not be: their stream leaves its receiver,
// which first waits for what consumers have there.
var ErrWithdrawn = errors.New("buffstreams: the messages were never sent, and their stream leaves its receiver")

// Withdraw takes those messages out of a stream that leaves which were never sent and whose callers have them, and ends
// their waits, or the parts of their waits that are about them. The stream goes on behind them as behind what was
// settled. It wakes those that wait for room.
func (c *Client) Withdraw(o *Outbound) {
	if !o.leaving || o.fetched != nil || o.cause != nil {
		return
	}
	from := max(o.sentTo, o.maxSent)
	var taken []Range
	var woken []chan<- struct{}
	withdraw := func(ws []*Waiter) []*Waiter {
		return slices.DeleteFunc(ws, func(w *Waiter) bool {
			if !w.Withdrawable || w.Last < from {
				return false
			}
			back := Range{First: max(w.First, from), Last: w.Last}
			taken = append(taken, back)
			if w.Woken != nil {
				woken = append(woken, w.Woken)
			}
			if w.First < from { // the rest of it was sent
				w.Back, w.Last = back, from-1
				return false
			}
			o.finish(w, ErrWithdrawn)
			return true
		})
	}
	o.waitReceived, o.waitHandled = withdraw(o.waitReceived), withdraw(o.waitHandled)
	o.settleElsewhere(taken...)
	for _, c := range woken {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	o.signalLine()
}
