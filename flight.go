package buffstreams

import (
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// flight is one delivery as a Watermill message, from its emission to its end.
type flight struct {
	msg *message.Message
	ctx *messageContext // has the delivery
}

func (s *subscription) newFlight(d dispatch.Delivery, msg *message.Message) flight {
	f := flight{msg, &messageContext{sub: s, delivery: d}}
	msg.SetContext(f.ctx)
	return f
}

func (f flight) acked() bool { return isClosed(f.msg.Acked()) }

func (f flight) nacked() bool { return isClosed(f.msg.Nacked()) }

// decode returns a delivery's message. It returns false if that cannot be decoded and is not to be emitted: it fails.
func (s *subscription) decode(d dispatch.Delivery) (*message.Message, bool) {
	msg, err := s.unmarshal(d)
	if err == nil || s.subscriber.cfg.EmitUndecodable {
		return msg, true
	}
	s.watched.Add(1)
	s.wg.Go(func() { // Ends with fail, which gives up when the subscription closes; finish waits for it.
		s.fail(d, msg, &UndecodableError{err})
		s.endWatch()
	})
	return msg, false
}

// unmarshal returns a message in any case: with an error, it has the raw bytes as payload.
func (s *subscription) unmarshal(d dispatch.Delivery) (*message.Message, error) {
	data := d.Message()
	msg, err := s.subscriber.cfg.Unmarshaler.Unmarshal(s.topic, data)
	if err != nil {
		msg = message.NewMessage(watermill.NewUUID(), data)
		msg.Metadata.Set(UndecodableKey, err.Error())
	}
	return msg, err
}
