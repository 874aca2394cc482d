package session

import "slices"

// Turn is the place of a caller in the line of those that wait for room in a stream. Ready receives when the caller may
// have become the first, or there may be more room for the first.
type Turn struct {
	Ready  chan struct{}
	signal func()
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

// join puts t at the end of the line, unless it stands there.
func (o *Outbound) join(t *Turn) {
	if t != nil && !slices.Contains(o.line, t) {
		o.line = append(o.line, t)
	}
}

// Leave ends the wait of a caller. The next one in the line becomes the first.
func (o *Outbound) Leave(t *Turn) {
	i := slices.Index(o.line, t)
	if i < 0 {
		return
	}
	o.line = slices.Delete(o.line, i, i+1)
	if i == 0 {
		o.account.Leave()
		o.account.Wake()
		o.signalFirst()
	}
}

func (o *Outbound) signalFirst() {
	if len(o.line) > 0 {
		o.line[0].signal()
	}
}

// signalLine wakes every caller that waits for room.
func (o *Outbound) signalLine() {
	for _, t := range o.line {
		t.signal()
	}
}
