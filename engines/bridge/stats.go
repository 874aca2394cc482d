package bridge

import "sync/atomic"

// counters are Stats as they are counted.
type counters struct{ received, forwarded, bytes, skipped, refused, retries, inHand atomic.Int64 }

// Stats says what a bridge has done since Open.
type Stats struct {
	// Received is how many messages came from the source, repeated ones included.
	Received int64
	// Forwarded is how many the destination has confirmed, Bytes what they had in payload and metadata.
	Forwarded, Bytes int64
	// Skipped is how many were at the destination already.
	Skipped int64
	// Refused is how many the destination refused for good.
	Refused int64
	// Retries is how often a batch was published again.
	Retries int64
	// InHand is how many are on their way.
	InHand int64
}

// Stats returns what the bridge has done.
func (b *Bridge) Stats() Stats {
	c := &b.counts
	return Stats{
		Received: c.received.Load(), Forwarded: c.forwarded.Load(), Bytes: c.bytes.Load(), Skipped: c.skipped.Load(),
		Refused: c.refused.Load(), Retries: c.retries.Load(), InHand: c.inHand.Load(),
	}
}
