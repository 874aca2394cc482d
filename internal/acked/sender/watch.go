package sender

import (
	"time"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// What follows tells Config.Hooks what happens. It is called with no lock held, on a goroutine that has to do with this
// Sender alone.

// noteSent tells the hooks what was written.
func (s *Sender) noteSent(segments []session.Segment, err error) {
	if !s.cfg.Hooks.WatchesSent() || len(segments) == 0 || err != nil {
		return
	}
	e := hooks.Sent{Address: s.cfg.Address}
	for _, seg := range segments {
		e.Messages += int(seg.Count)
		e.Bytes += len(seg.Body)
	}
	s.cfg.Hooks.Sent(e)
}

// noteSettled tells the hooks what the peer has settled.
func (s *Sender) noteSettled(runs []session.SettledRun) {
	now := time.Now()
	for _, r := range runs {
		e := hooks.Settled{Address: s.cfg.Address, Topic: r.Topic, Messages: int(r.Messages), Bytes: r.Bytes}
		if !r.Oldest.IsZero() {
			e.Age = now.Sub(r.Oldest)
		}
		s.cfg.Hooks.Settled(e)
	}
}

// noteWaited tells the hooks of a call that had to wait for room.
func (s *Sender) noteWaited(p *publication, err error) {
	if !p.waiting.IsZero() {
		s.cfg.Hooks.WindowFull(hooks.WindowFull{
			Address: s.cfg.Address, Topic: session.TopicOf(p.topic), Wait: time.Since(p.waiting), Err: err,
		})
	}
}

// noteRejected tells of a message that was refused.
func (s *Sender) noteRejected(r session.Refused) {
	s.Tell(func(set *hook.Set) {
		set.Rejected(hooks.Rejected{Address: s.cfg.Address, Topic: r.Topic, Err: r.Err})
	})
}

// Tell has the hooks told of something on a goroutine of the Sender's, one after another. It does not block.
func (s *Sender) Tell(event func(*hook.Set)) {
	if s.cfg.Hooks == nil {
		return
	}
	s.mu.Lock()
	s.events = append(s.events, event)
	s.mu.Unlock()
	s.teller.Kick()
}

// tellEvents tells of what Tell was called for. The teller calls it.
func (s *Sender) tellEvents() {
	s.mu.Lock()
	events := s.events
	s.events = nil
	s.mu.Unlock()
	for _, e := range events {
		e(s.cfg.Hooks)
	}
}
