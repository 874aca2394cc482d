package bridge

import (
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// held is a message in the bridge's hands. Those that come together share memory, so that msg is let go with the
// answer.
type held struct {
	msg   *message.Message
	id    string
	size  int
	state state // guarded by acks.mu
}

type state byte

const (
	// inLine: it is not confirmed.
	inLine state = iota
	// confirmed: it is acked when those before it are.
	confirmed
	// outOfLine: it holds up none behind it, and is acked or nacked by itself.
	outOfLine
)

// acks acks messages in the order in which they came, which costs a source the least: it has to look at the oldest
// only.
type acks struct {
	mu   sync.Mutex
	line []*held // in the order in which they came; guarded by mu
}

// add puts messages at the end of the line.
func (a *acks) add(messages []*held) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.line = append(a.line, messages...)
}

// confirm acks messages when those before them are acked.
func (a *acks) confirm(messages ...*held) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range messages {
		if h.state == outOfLine {
			h.ack()
			continue
		}
		h.state = confirmed
	}
	a.advanceLocked()
}

// leave lets those behind the messages be acked before them.
func (a *acks) leave(messages ...*held) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range messages {
		h.state = outOfLine
	}
	a.advanceLocked()
}

// nack gives messages back to their source.
func (a *acks) nack(messages ...*held) {
	a.leave(messages...)
	for _, h := range messages {
		h.msg.Nack()
		h.msg = nil
	}
}

func (h *held) ack() {
	h.msg.Ack()
	h.msg = nil
}

func (a *acks) advanceLocked() {
	n := 0
	for ; n < len(a.line) && a.line[n].state != inLine; n++ {
		if a.line[n].state == confirmed {
			a.line[n].ack()
		}
	}
	clear(a.line[:n])
	if a.line = a.line[n:]; len(a.line) == 0 {
		a.line = nil // it moves through its memory, which append makes anew
	}
}
