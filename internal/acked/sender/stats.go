package sender

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// Stats describes a Sender at one moment.
type Stats struct {
	State     State
	Since     time.Time // of State; zero: the Sender has done nothing yet
	LastError string    // of the connection lost last, or of the last attempt; quoted and cut
	ErrorAt   time.Time
	Connects  uint64 // connections that a peer has welcomed
	Failures  uint64 // connections lost, and attempts that failed
	Streams   []session.StreamStats
	Totals    session.Totals
}

// status is what Stats says of the connection. Sender.mu guards it.
type status struct {
	state              State
	since, errorAt     time.Time
	lastError          string
	connects, failures uint64
}

// Stats describes the Sender. It dials nothing.
func (s *Sender) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &s.status
	return Stats{
		State: st.state, Since: st.since, LastError: st.lastError, ErrorAt: st.errorAt, Connects: st.connects,
		Failures: st.failures, Streams: s.client.Stats(), Totals: s.client.Totals(),
	}
}

// set notes the state, and returns whether it is another one.
func (st *status) set(state State) (changed bool) {
	if st.state == state {
		return false
	}
	if state == Ready {
		st.connects++
	}
	st.state, st.since = state, time.Now()
	return true
}

// noteFailureLocked notes why there is no connection. The caller must hold mu.
func (s *Sender) noteFailureLocked(err error) {
	s.status.failures++
	s.status.lastError, s.status.errorAt = netio.Sanitize(err).Error(), time.Now()
}

// Status is the state of the Sender, with its time and the last error.
func (s *Sender) Status() (state State, since time.Time, lastError string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.state, s.status.since, s.status.lastError
}
