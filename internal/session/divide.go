package session

// divideBytes is about how much Divide copies at a time, as its callers hold locks.
const divideBytes = 256 << 10

// Divisible tells whether Divide has something to give.
func (c *Client) Divisible(o *Outbound) bool {
	first, last := o.unsentRun()
	return first <= last
}

// Divide puts messages of o, a stream that leaves its receiver, behind those of a stream of the same topic at another
// Client: those that were never sent and that no caller of Publish waits for, from the first on, as many as there is
// room for and a call should copy. It returns their number. o goes on behind them as behind what was settled.
func (c *Client) Divide(o *Outbound, to *Client, into *Outbound) int {
	first, last := o.unsentRun()
	if first > last || into.cause != nil || into.fetched != nil {
		return 0
	}
	var b Batch
	for seq := first; seq <= last && len(b.buf) < divideBytes; seq++ {
		entry := o.chunks[o.chunkOf(seq)].entry(seq)
		b.entries = append(b.entries, batchEntry{start: len(b.buf), end: len(b.buf) + len(entry)})
		b.buf = append(b.buf, entry...)
	}
	taken, _, err := to.Enqueue(into, &b, 0, nil)
	if err != nil || taken == 0 {
		return 0
	}
	o.settleElsewhere(Range{First: first, Last: first + uint64(taken) - 1})
	return taken
}

// unsentRun is the first run of messages that Divide can take; last is below first if there is none.
func (o *Outbound) unsentRun() (first, last uint64) {
	if !o.leaving || o.fetched != nil || o.cause != nil {
		return 1, 0
	}
	first, last = o.settled.Hole(max(o.sentTo, o.maxSent))
	last = min(last, o.next-1)
	for _, waiting := range [...][]*Waiter{o.waitReceived, o.waitHandled} {
		for _, w := range waiting {
			if w.Withdrawable && w.Last >= first { // it was enqueued after Withdraw, which gives it back before long
				last = min(last, w.First-1)
			}
		}
	}
	return first, last
}

// settleElsewhere has the stream go on behind messages as behind what was settled: they count where they are now.
func (o *Outbound) settleElsewhere(taken ...Range) {
	counting := o.counting
	o.counting = nil
	for _, r := range taken {
		o.settle(r.First, r.Last)
	}
	o.counting = counting
	if len(taken) > 0 {
		o.finishReached()
	}
}
