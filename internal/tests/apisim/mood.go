package apisim

import (
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
)

// mood is how a subscription's handlers behave until everybody is tamed.
type mood string

var moods = []mood{"prompt", "prompt", "prompt", "prompt", "slow", "slow", "nacks", "nacks once", "stuck", "reads nothing", "writes and nacks", "leaves", "always nacks"}

// judge does what the mood says, and reports whether to ack.
func (w *world) judge(x *subscription, m *message.Message) bool {
	id := idOf(m)
	w.mu.Lock()
	x.seen[id]++
	times := x.seen[id]
	x.busy++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		x.busy--
		x.idle = time.Now()
		w.mu.Unlock()
	}()
	select {
	case <-w.tame:
		return true
	default:
	}
	r := w.random(x.id, id, times)
	switch x.mood {
	case "slow":
		w.sleep(time.Duration(1+r.IntN(150)) * time.Millisecond)
	case "nacks":
		return r.IntN(3) > 0
	case "always nacks":
		return false
	case "nacks once":
		return times > 1
	case "stuck":
		<-w.tame
	case "writes and nacks":
		if times == 1 && !undecodable(m) { // whose bytes are all that tells which it is
			for i := range m.Payload {
				m.Payload[i] = 'X'
			}
			return false
		}
	case "leaves":
		if r.IntN(4) == 0 {
			w.end(x)
		}
	}
	return true
}

// sleep is shorter when everybody is tamed.
func (w *world) sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.tame:
	}
}
