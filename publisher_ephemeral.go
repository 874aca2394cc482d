package buffstreams

import (
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
)

// onRefused is called for a message that a peer has refused, or that was dropped as its topic is gone. It tells whether
// this Publisher answers for it: one that has no OnFailure drops what is its own to drop, and nothing of others.
func (p *Publisher) onRefused(peer string, r session.Refused) (answers bool) {
	if r.Ephemeral && errors.Is(r.Err, ErrTopicGone) {
		p.drop(peer, r.Topic, r.Message, r.Err)
		return true
	}
	p.failures.add(r.Topic, r.Message, r.Err)
	return p.cfg.OnFailure != nil
}

// drop counts a message of an ephemeral Publisher whose topic is gone, gives it to OnFailure, and logs that:
// the first time, and then once a minute.
func (p *Publisher) drop(peer, topic string, encoded []byte, reason error) {
	fields := watermill.LogFields{
		"provider": provider, "address": peer, "topic": netio.Quote(topic), "count": p.dropped.Add(1), "err": reason,
	}
	if _, ok := p.drops.Say(); ok {
		p.logger.Info("Message dropped: its topic or peer is gone", fields)
	} else {
		p.logger.Debug("Message dropped: its topic or peer is gone", fields)
	}
	p.failures.add(topic, encoded, reason)
}

// ephemeralTimeout leaves time to find that a topic is gone, which takes a second and what is needed to notice: no more
// than a second more than the timeout.
func ephemeralTimeout(timeout time.Duration) time.Duration {
	if timeout == 0 {
		return 0
	}
	return max(timeout, min(timeout+time.Second, 1500*time.Millisecond))
}
