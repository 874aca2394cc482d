package buffstreams

import (
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// handling says when the time of a slow message begins that AckWaitTimeout gives its handler.
//
// A message that was taken from the channel need not be with a handler yet: a decorator may hold it until the handler
// is through with those before. So time runs for the oldest message without an answer, for as many more as handlers
// were seen to work side by side (an answer that comes before those of n older messages shows that there are n+1), and
// for all but maxHeld.
type handling struct {
	timeout time.Duration // 0: for ever

	mu         sync.Mutex // guards the fields below
	slow       []*slow    // in the order of emission
	sideBySide int        // handlers that were seen, less one
}

// maxHeld is how many messages decorators may hold: each holds one.
const maxHeld = 4

// slow is one message that waits for its answer.
type slow struct {
	msg   *message.Message
	timer *time.Timer   // nil until its time begins
	late  chan struct{} // closed when its time is over
}

func (s *slow) answered() bool { return isClosed(s.msg.Acked()) || isClosed(s.msg.Nacked()) }

// add appends a message that handlers may have. It returns nil if there is no limit.
func (h *handling) add(msg *message.Message) *slow {
	if h.timeout == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &slow{msg: msg, late: make(chan struct{})}
	h.slow = append(h.slow, s)
	h.startTimersLocked()
	return s
}

// remove ends the wait for a message, which was answered or is late.
func (h *handling) remove(s *slow) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.Index(h.slow, s)
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.answered() {
		h.learnLocked(i)
	}
	h.slow = slices.Delete(h.slow, i, i+1)
	h.startTimersLocked()
}

// answered notes that a message was answered which is younger than all that are slow.
func (h *handling) answered() {
	if h.timeout == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.learnLocked(len(h.slow))
	h.startTimersLocked()
}

// learnLocked notes the answer of a message that has n older ones. Those that were answered meanwhile show nothing.
func (h *handling) learnLocked(n int) {
	if n <= h.sideBySide {
		return
	}
	older := 0
	for _, s := range h.slow[:n] {
		if !s.answered() {
			older++
		}
	}
	h.sideBySide = max(h.sideBySide, older)
}

// startTimersLocked has time run for the messages that handlers have.
func (h *handling) startTimersLocked() {
	running := max(h.sideBySide+1, len(h.slow)-maxHeld)
	for _, s := range h.slow[:min(len(h.slow), running)] {
		if s.timer == nil {
			s.timer = time.AfterFunc(h.timeout, func() { close(s.late) })
		}
	}
}
