package session

// Tenure counts the places that the stream has had.
func (o *Outbound) Tenure() uint64 { return o.tenure }

// NextTenure is the tenure that Detach would begin now.
func (o *Outbound) NextTenure() uint64 {
	if o.openSent {
		return o.tenure + 1
	}
	return o.tenure
}

// tenureOf is what an Open says of the stream's tenure.
func (c *Client) tenureOf(o *Outbound) uint64 {
	if !c.moves() {
		return 0
	}
	return o.tenure
}

// lapse ends a tenure. What was sent in it and is not settled can come twice, but for what the receiver has returned
// and what is not below next, the lowest sequence that it has not received; 0: it does not say. Neither was given to a
// consumer.
func (o *Outbound) lapse(returned []uint64, next uint64) {
	end := o.sentTo
	if next > 0 {
		end = min(end, next)
	}
	var given Watermark
	for ; len(returned) > 1; returned = returned[2:] {
		given.Add(returned[0], returned[1])
	}
	o.tenure++
	o.openSent, o.asked, o.sentTo, o.received = false, false, 0, o.settled.Next()
	for first, last := range o.settled.Holes(1, end) {
		for lo, hi := range given.Holes(first, last+1) {
			o.lapsed += int(hi - lo + 1)
			o.repeats(lo, hi)
		}
	}
}

// repeats notes that messages can come twice.
func (o *Outbound) repeats(first, last uint64) {
	if o.again == nil {
		o.again = &Watermark{}
	}
	o.again.Add(first, last)
}

// sameKind is how many messages from seq on, up to count, can come twice or cannot, as the first of them. again tells
// which.
func (o *Outbound) sameKind(seq, count uint64) (n uint64, again bool) {
	if o.settled.Next() >= o.again.End() {
		o.again = nil
		return count, false
	}
	first, last := o.again.Hole(seq)
	if first > seq {
		return min(count, first-seq), true
	}
	return min(count, last-seq+1), false
}

// Repeats is the number of messages that are not settled and can come twice.
func (o *Outbound) Repeats() (n int) {
	if o.again == nil {
		return 0
	}
	for first, last := range o.settled.Holes(1, o.again.End()) {
		n += int(last - first + 1)
		for lo, hi := range o.again.Holes(first, last+1) {
			n -= int(hi - lo + 1)
		}
	}
	return n
}
