package sender

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// State is how far a Sender is with its peer.
type State int

// The states of a Sender.
const (
	Idle       State = iota // no connection, and nothing to deliver
	Connecting              // dialing or greeting; there is no verdict yet
	Ready                   // the peer has welcomed the connection and takes messages
	Draining                // the peer has said that it goes away
	Failed                  // the connection, or the attempt to make one, has failed; another attempt follows
	Gone                    // as Failed, and the attempt was refused
	Silent                  // something is unsettled, and the peer has not been heard for too long
)

// stateNames are the names of the states in Stats: how an attempt failed is in the last error.
var stateNames = [...]string{"idle", "connecting", "ready", "draining", "failed", "failed", "failed"}

func (s State) String() string { return stateNames[s] }

// State returns the present state.
func (s *Sender) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status.state
}

// Dial connects, and keeps the Sender connected also while there is nothing to deliver, until Undial.
func (s *Sender) Dial() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = true
	s.runLocked()
}

// Undial ends what Dial began: a connection that is lost is made again only if there is something to deliver.
func (s *Sender) Undial() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = false
}

// Redial makes the next attempt to connect at once, if the Sender waits for it.
func (s *Sender) Redial() {
	select {
	case s.redial <- struct{}{}:
	default:
	}
}

// setState notes the state, and calls Config.Changed if that is another one. Only run and what it calls call it.
func (s *Sender) setState(state State) {
	s.mu.Lock()
	changed := s.status.set(state)
	s.mu.Unlock()
	if changed && s.cfg.Changed != nil {
		s.cfg.Changed(s)
	}
}

// stateOfConnection is the state while there is a connection.
func (s *Sender) stateOfConnectionLocked() State {
	switch {
	case s.client.Draining():
		return Draining
	case s.client.Established():
		return Ready
	}
	return Connecting
}

// stateAfter is the state after a connection or an attempt has failed.
func stateAfter(err error) State {
	if netio.Refused(err) {
		return Gone
	}
	return Failed
}

// Unreachable says why there is no connection; nil: there is one, or none was tried. definite: another attempt is of no use
// until a configuration changes.
func (s *Sender) Unreachable() (err error, definite bool) { //nolint:revive // definite says more of err
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unreachable == nil {
		return nil, false
	}
	return s.unreachable.Cause, s.refusal != nil
}

// ShortenSilence makes the silence less after which the peer is pinged, and given up, unless it is less already.
func (s *Sender) ShortenSilence(ping, dead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client.ShortenSilence(ping, dead)
}
