package session

import (
	"slices"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

// Turn is the place of a caller in the line of those that wait for room in a stream. Ready receives when the caller
// tries again: room is set aside for it, the budget has more, or the stream has ended.
type Turn struct {
	Ready  chan struct{}
	signal func()

	stream *Outbound // in whose line it stands; nil: in none
	need   int       // bytes of the message that it waits with
	called bool      // room for that message is set aside
}

// NewTurn returns a Turn that is in no line.
func NewTurn() *Turn {
	t := &Turn{Ready: make(chan struct{}, 1)}
	t.signal = func() {
		select {
		case t.Ready <- struct{}{}:
		default:
		}
	}
	return t
}

// line is the callers that wait for room in a stream. Those for whom there is room are called together, in order, and
// those that come meanwhile need not wait where room is left: if each were called when the one before it is done,
// callers that come again would find the line never empty, and wait for each message.
type line struct {
	turns  []*Turn
	called int         // turns that are called
	aside  flow.Amount // the room that is set aside for them
	short  *Turn       // waits for the budget: no other takes from it meanwhile; nil: none
}

// waits tells whether a caller has to wait that is not in the line.
func (l *line) waits() bool { return l.called < len(l.turns) || l.short != nil }

// mayEnqueue tells whether it is the turn of a caller. A nil turn is in no line.
func (o *Outbound) mayEnqueue(t *Turn) bool {
	switch l := &o.line; {
	case l.short != nil:
		return t == l.short
	case t == nil || t.stream != o:
		return !l.waits()
	default:
		return t.called || t == l.turns[0]
	}
}

// join puts t at the end of the line, unless it stands there, with the size of the message that it waits with.
func (o *Outbound) join(t *Turn, need int) {
	if t == nil {
		return
	}
	if t.stream != o {
		t.stream, t.called = o, false
		o.line.turns = append(o.line.turns, t)
	}
	t.need = need
}

// Leave ends the wait of a caller.
func (o *Outbound) Leave(t *Turn) {
	if t.stream != o {
		return
	}
	l := &o.line
	o.takeBack(t)
	i := slices.Index(l.turns, t)
	l.turns = slices.Delete(l.turns, i, i+1)
	t.stream = nil
	if l.short == t {
		l.short = nil
		o.account.Leave()
		o.account.Wake()
	}
	o.callLine()
}

// callLine calls those in the line for whom the window has room.
func (o *Outbound) callLine() {
	l := &o.line
	if l.short != nil || l.called == len(l.turns) {
		return
	}
	for _, t := range l.turns {
		if t.called || t.stream != o {
			continue
		}
		if !o.fits(1, t.need) {
			return
		}
		t.called = true
		l.called++
		l.aside.Messages++
		l.aside.Bytes += t.need
		t.signal()
	}
}

// takeBack takes back what is set aside for a caller.
func (o *Outbound) takeBack(t *Turn) {
	if t != nil && t.stream == o && t.called {
		l := &o.line
		t.called = false
		l.called--
		l.aside.Messages--
		l.aside.Bytes -= t.need
	}
}

// signalLine wakes every caller that waits for room.
func (o *Outbound) signalLine() {
	for _, t := range o.line.turns {
		t.signal()
	}
}
