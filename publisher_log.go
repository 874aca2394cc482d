package buffstreams

import (
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// longWait is when a call of Publish has waited for so long that a line says why.
const longWait = time.Second

// sayWait logs why a call of Publish waits that is not with a connection yet: of those that are, the connection says
// it.
func (p *Publisher) sayWait(s *topicState, since time.Time, reason error) {
	if _, ok := p.waits.Say(s.topic); !ok {
		return
	}
	p.logger.Info("Publish has waited for more than a second", watermill.LogFields{
		"provider": provider, "topic": netio.Quote(s.topic), "waited": time.Since(since).Round(time.Millisecond),
		"calls": max(0, int(s.calls.Load())), "reason": netio.Sanitize(reason).Error(),
	})
}

// trace logs what Publish says of each message.
func (p *Publisher) trace(topic string, messages []*message.Message, err error) {
	failed := (*PublishError)(nil)
	switch {
	case err == nil:
		p.traceEach(topic, messages, "confirmed", nil)
	case !errors.As(err, &failed):
		p.traceEach(topic, messages, "not sent", err)
	default:
		p.traceEach(topic, confirmed(messages, failed.NotSent, failed.Unknown), "confirmed", nil)
		p.traceEach(topic, failed.Unknown, "unknown", err)
		p.traceEach(topic, failed.NotSent, "not sent", err)
	}
}

// confirmed returns the messages that are in none of the others.
func confirmed(messages []*message.Message, others ...[]*message.Message) (left []*message.Message) {
	named := map[*message.Message]bool{}
	for _, some := range others {
		for _, msg := range some {
			named[msg] = true
		}
	}
	for _, msg := range messages {
		if !named[msg] {
			left = append(left, msg)
		}
	}
	return left
}

func (p *Publisher) traceEach(topic string, messages []*message.Message, outcome string, err error) {
	for _, msg := range messages {
		if msg == nil {
			continue
		}
		fields := watermill.LogFields{
			"provider": provider, "topic": netio.Quote(topic), "message_uuid": netio.Printable(msg.UUID), "outcome": outcome,
		}
		if err != nil {
			fields["reason"] = netio.Sanitize(err).Error()
		}
		p.logger.Trace("Message published", fields)
	}
}
