package session

import "time"

// stuck is the caller of a stream that has waited longest, as Tick has seen it.
type stuck struct {
	received, handled waited
	room              struct {
		turn  *Turn
		since time.Time
	}
}

// waited is the first message of a waiter, and since when it is the oldest that waits.
type waited struct {
	first uint64
	since time.Time
}

// note notes which waiters are there at now, oldest first.
func (w *waited) note(ws []*Waiter, now time.Time) {
	switch {
	case len(ws) == 0:
		*w = waited{}
	case ws[0].First != w.first:
		*w = waited{ws[0].First, now}
	}
}

// noteStuck notes who waits for a stream at now.
func (o *Outbound) noteStuck(now time.Time) {
	s := &o.stuck
	s.received.note(o.waitReceived, now)
	s.handled.note(o.waitHandled, now)
	switch {
	case len(o.line.turns) == 0:
		s.room.turn, s.room.since = nil, time.Time{}
	case o.line.turns[0] != s.room.turn:
		s.room.turn, s.room.since = o.line.turns[0], now
	}
}

// waiting returns since when the caller that has waited longest waits; zero: none does.
func (s *stuck) waiting() (since time.Time) {
	for _, at := range [...]time.Time{s.received.since, s.handled.since, s.room.since} {
		if !at.IsZero() && (since.IsZero() || at.Before(since)) {
			since = at
		}
	}
	return since
}

// longest is the wait that is reported by LongestWait.
type longest struct {
	stream *Outbound
	since  time.Time
	calls  int
}

// add takes a stream into account.
func (l *longest) add(o *Outbound) {
	since := o.stuck.waiting()
	if since.IsZero() {
		return
	}
	l.calls += len(o.waitReceived) + len(o.waitHandled) + len(o.line.turns)
	if l.stream == nil || since.Before(l.since) {
		l.stream, l.since = o, since
	}
}

// LongestWait returns the stream whose caller waits longest, as the last Tick has seen it, since when, and how many
// calls wait in all. The stream is nil if none waits.
func (c *Client) LongestWait() (stream *Outbound, since time.Time, calls int) {
	return c.longest.stream, c.longest.since, c.longest.calls
}
