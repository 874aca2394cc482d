package session

import "time"

// Totals counts what a Client has done since it was made.
type Totals struct {
	Sent      uint64 // messages, those that were sent again included
	SentBytes uint64 // of them, with their tags and lengths
	Settled   uint64 // messages: handled, or refused for good
	Refused   uint64 // messages of those
}

// StreamStats describes a stream at one moment.
type StreamStats struct {
	Topic      string
	Fetched    bool      // a store keeps the messages
	Pending    int       // messages that are not settled
	Unreceived int       // of these, those that the peer is not known to have, or was asked to give back
	Bytes      int       // that are kept in memory
	Oldest     time.Time // when the oldest message that is not settled was enqueued; zero: there is none, or it is not known
	Waiting    int       // calls that wait for room
	Groups     uint64    // see Client.Groups; 0 also where that is not known
}

// SettledRun is messages of one topic that one frame of the peer has settled.
type SettledRun struct {
	Topic    string
	Messages uint64
	Bytes    int       // about; 0 where a store keeps the messages
	Oldest   time.Time // when the first of them was enqueued; zero: it is not known
}

// counting is what the streams of a Client count.
type counting struct {
	Totals
	observe bool // collect runs
	runs    []SettledRun
}

// Totals returns what the Client has counted.
func (c *Client) Totals() Totals { return c.counting.Totals }

// SettledRuns returns what was settled since the last call, where ClientConfig.Observe is set. It is valid until the
// next call.
func (c *Client) SettledRuns() []SettledRun {
	runs := c.counting.runs
	c.counting.runs, c.spareRuns = c.spareRuns[:0], runs
	return runs
}

// noteSettled counts n messages from first on that were settled, with so many bytes, and forgets the ages that are
// needed no longer.
func (o *Outbound) noteSettled(first, n uint64, bytes int) {
	if c := o.counting; c != nil {
		c.Settled += n
		if c.observe && n > 0 {
			c.addRun(SettledRun{Topic: o.Topic, Messages: n, Bytes: bytes, Oldest: o.ages.of(first)})
		}
	}
	if o.pending == 0 {
		o.ages.clear()
	} else {
		o.ages.drop(o.settled.Next())
	}
}

// addRun adds a run, or makes the last one longer if it is of the same topic.
func (c *counting) addRun(r SettledRun) {
	if n := len(c.runs); n > 0 && c.runs[n-1].Topic == r.Topic {
		c.runs[n-1].Messages += r.Messages
		c.runs[n-1].Bytes += r.Bytes
		return
	}
	c.runs = append(c.runs, r)
}

// Stats describes the streams, from the oldest to the newest.
func (c *Client) Stats() []StreamStats {
	all := make([]StreamStats, 0, len(c.handles))
	for _, o := range c.inOrder() {
		if o.state == broken {
			continue
		}
		s := StreamStats{
			Topic: o.Topic, Fetched: o.fetched != nil, Pending: o.unsettled(), Unreceived: o.Unreceived(), Bytes: o.bytes,
			Waiting: len(o.line.turns), Groups: c.groups[o.Topic],
		}
		if o.revoking {
			s.Unreceived = s.Pending
		}
		if s.Pending > 0 {
			s.Oldest = o.oldest()
		}
		all = append(all, s)
	}
	return all
}

// oldest is when the oldest message that is not settled was enqueued.
func (o *Outbound) oldest() time.Time {
	first, _ := o.settled.Hole(1)
	return o.ages.of(first)
}

// noteAge marks when the next message of a stream is enqueued: exactly for the first of a stream that had none, and
// where settled messages are observed, otherwise to the time between two Ticks.
func (c *Client) noteAge(o *Outbound) {
	if c.cfg.Clock != nil && (o.pending == 0 || c.cfg.Observe) {
		c.now = c.cfg.Clock().UnixNano()
	}
	if c.now != 0 {
		o.ages.note(o.next, c.now)
	}
}
