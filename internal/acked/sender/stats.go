package sender

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// State is where a Sender stands with its address.
type State string

// The states of a Sender.
const (
	Idle       State = "idle"       // there is no connection, and nothing to send
	Connecting State = "connecting" // there is no connection yet
	Ready      State = "ready"      // the peer has welcomed the connection
	Draining   State = "draining"   // the peer has said that it closes its listener
	Failed     State = "failed"     // the connection was lost, or the last attempt to connect has failed
	Gone       State = "gone"       // the Sender was closed
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
	s.noteStateLocked()
	st := &s.status
	return Stats{
		State: st.state, Since: st.since, LastError: st.lastError, ErrorAt: st.errorAt, Connects: st.connects,
		Failures: st.failures, Streams: s.client.Stats(), Totals: s.client.Totals(),
	}
}

// noteStateLocked notes when the state changes. The caller must hold mu.
func (s *Sender) noteStateLocked() {
	if state := s.stateLocked(); state != s.status.state {
		if state == Ready {
			s.status.connects++
		}
		s.status.state, s.status.since = state, time.Now()
	}
}

func (s *Sender) stateLocked() State {
	switch {
	case s.closed:
		return Gone
	case s.conn != nil && s.client.Draining():
		return Draining
	case s.conn != nil && s.client.Established():
		return Ready
	case s.running && s.unreachable != nil:
		return Failed
	case s.running:
		return Connecting
	}
	return Idle
}

// noteFailureLocked notes why there is no connection. The caller must hold mu.
func (s *Sender) noteFailureLocked(err error) {
	s.status.failures++
	s.status.lastError, s.status.errorAt = netio.Sanitize(err).Error(), time.Now()
	s.noteStateLocked()
}

// Status is the state of the Sender, with its time and the last error.
func (s *Sender) Status() (state State, since time.Time, lastError string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noteStateLocked()
	return s.status.state, s.status.since, s.status.lastError
}
