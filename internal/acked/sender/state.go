package sender

import "time"

// State is what is known of the peer of a Sender.
type State int

// The states of a peer.
const (
	Idle       State = iota // no connection, and nothing to deliver
	Connecting              // it is dialed, or has not answered the greeting
	Ready                   // it takes messages
	Draining                // it will close the connection and takes no more messages
	Failed                  // the last attempt to connect has failed, and it is not known why
	Gone                    // there is no connection, and nothing listens at the address
	Silent                  // it has something that is not settled, and nothing was heard for MoveAfter
)

func (s State) String() string {
	return [...]string{"idle", "connecting", "ready", "draining", "failed", "gone", "silent"}[s]
}

// State returns the state of the peer.
func (s *Sender) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stateLocked()
}

func (s *Sender) stateLocked() State {
	switch {
	case s.client.Silent():
		return Silent
	case s.conn != nil && s.client.Draining():
		return Draining
	case s.conn != nil && s.client.Established():
		return Ready
	case s.client.Gone():
		return Gone
	case s.failing:
		return Failed
	case s.running:
		return Connecting
	}
	return Idle
}

// Groups is session.Client.Groups.
func (s *Sender) Groups(topic string) (digest uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client.Groups(topic)
}

// Dial connects, and has the Sender stay connected though there is nothing to deliver, until Undial is called.
func (s *Sender) Dial() { s.setKept(true) }

// Undial ends what Dial began: a connection that is lost is not made again without something to deliver.
func (s *Sender) Undial() { s.setKept(false) }

func (s *Sender) setKept(kept bool) {
	s.mu.Lock()
	s.kept = kept
	s.mu.Unlock()
	s.kick()
}

// neededLocked tells whether there is something to connect for. The caller must hold mu.
func (s *Sender) neededLocked() bool { return s.kept || s.client.Pending() > 0 || s.client.Left() }

// noteStateLocked has Config.Changed called, and the streams looked after, if the state may have changed. The caller
// must hold mu.
func (s *Sender) noteStateLocked() {
	changed := s.status.set(s.stateLocked())
	if s.cfg.Changed == nil && len(s.streams) == 0 {
		return
	}
	if changed || s.client.TookMoves() {
		s.changed = s.changed || changed
		s.mover.Kick()
	}
}

// settleMoves calls Config.Changed, and moves the streams that have to, or can. The mover, a flusher, calls it.
func (s *Sender) settleMoves() {
	s.mu.Lock()
	changed := s.changed
	s.changed = false
	s.mu.Unlock()
	if changed && s.cfg.Changed != nil {
		s.cfg.Changed(s)
	}
	for _, m := range s.dueMoves(time.Now()) {
		if m.to == nil {
			m.to = m.stream.cfg.alternative(m.stream)
		}
		if m.to != nil {
			m.stream.MoveTo(m.to)
		}
	}
}

// dueMove is a stream that can move now.
type dueMove struct {
	stream *Stream
	to     *Sender // nil: Alternative says
}

// patientFor is how long what was never sent waits for a peer that is dialed, or has taken the connection and not
// greeted, before it looks for an alternative.
const patientFor = 300 * time.Millisecond

// unwellLocked tells whether what was never sent should be elsewhere. The caller must hold mu.
func (s *Sender) unwellLocked(now time.Time) bool {
	state := s.stateLocked()
	return state >= Failed || s.refusal != nil || state == Connecting && s.status.state == Connecting && now.Sub(s.status.since) >= patientFor
}

// dueMoves returns the streams that can move now, or have to be asked for an alternative.
func (s *Sender) dueMoves(now time.Time) (due []dueMove) {
	s.mu.Lock()
	defer s.mu.Unlock()
	draining, unwell := s.stateLocked() == Draining, s.unwellLocked(now)
	for _, st := range s.inOrderLocked() {
		free := s.client.MayMove(st.out)
		switch {
		case st.target != nil && free:
			due = append(due, dueMove{st, st.target})
		case st.target != nil, st.out.Err() != nil:
		case draining, free && unwell:
			due = append(due, dueMove{stream: st})
		}
	}
	return due
}

// tickStreamsLocked looks after the streams of a peer that is not well, and forgets those that have ended. The caller
// must hold mu.
func (s *Sender) tickStreamsLocked(now time.Time) {
	s.noteStateLocked()
	if len(s.streams) == 0 {
		return
	}
	s.sweepLocked()
	if s.status.state == Draining || s.unwellLocked(now) {
		s.mover.Kick()
	}
}

// Unreachable says why there is no connection; nil: there is one, or none was tried. definite: another attempt is of no
// use until a configuration changes.
func (s *Sender) Unreachable() (err error, definite bool) {
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
