package sender

import "sync/atomic"

// place is where a stream is that moves between Senders.
type place struct {
	at atomic.Pointer[Sender] // changes with the mutex of both Senders held
}

// lock locks the Sender that has the stream, and returns it.
func (p *place) lock() *Sender {
	for {
		s := p.at.Load()
		s.mu.Lock()
		if p.at.Load() == s {
			return s
		}
		s.mu.Unlock()
	}
}
