package buffstreams

import (
	"bytes"
	"errors"
	"maps"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
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

// decoding is the delivery that the pump's callbacks are about.
type decoding struct {
	busy     bool
	delivery dispatch.Delivery
}

// decode returns a delivery's message and, where that is asked for, its key. With an error, the message has the raw bytes
// as payload.
func (p *pump) decode(d *dispatch.Delivery, keyed bool) (msg *message.Message, key string, err error) {
	p.decoding = decoding{true, *d}
	if p.trusted {
		msg, err = p.unmarshal(d)
	} else {
		p.code.enter(nameUnmarshaler)
		msg, err = p.unmarshal(d)
		p.code.leave()
	}
	if keyed {
		p.code.enter(nameKey)
		failed := hook.Call(nameKey, func() error { key = p.subscriber.cfg.Key(msg); return nil })
		p.code.leave()
		if failed != nil && err == nil {
			msg, err = undecoded(d, failed), failed
		}
	}
	p.decoding = decoding{}
	return msg, key, err
}

// unmarshal returns a message in any case: see decode.
func (s *subscription) unmarshal(d *dispatch.Delivery) (*message.Message, error) {
	if !s.trusted {
		return s.unmarshalGuarded(d)
	}
	msg, err := s.subscriber.cfg.Unmarshaler.Unmarshal(s.topic, d.Message())
	if err != nil {
		return undecoded(d, err), err
	}
	return msg, nil
}

// unmarshalGuarded is unmarshal for an Unmarshaler of the user's.
func (s *subscription) unmarshalGuarded(d *dispatch.Delivery) (msg *message.Message, err error) {
	err = hook.Call(nameUnmarshaler, func() (err error) {
		if msg, err = s.subscriber.cfg.Unmarshaler.Unmarshal(s.topic, d.Message()); err == nil {
			msg, err = usable(msg)
		}
		return err
	})
	if err != nil {
		return undecoded(d, err), err
	}
	return msg, nil
}

// undecoded is a message that cannot be decoded.
func undecoded(d *dispatch.Delivery, reason error) *message.Message {
	msg := message.NewMessage(watermill.NewUUID(), d.Message())
	msg.Metadata.Set(UndecodableKey, reason.Error())
	return msg
}

var errNoMessageDecoded = errors.New("the Unmarshaler returned neither a message nor an error")

// usable makes a message of the user's one that can be emitted: with metadata that can be added to, and with an answer of
// its own that can be waited for. A literal has none, and one that was emitted or answered before has another's.
func usable(msg *message.Message) (*message.Message, error) {
	if msg == nil {
		return nil, errNoMessageDecoded
	}
	_, emitted := msg.Context().(*messageContext)
	if emitted || msg.Acked() == nil || msg.Nacked() == nil || isClosed(msg.Acked()) || isClosed(msg.Nacked()) {
		fresh := message.NewMessage(msg.UUID, bytes.Clone(msg.Payload))
		maps.Copy(fresh.Metadata, msg.Metadata)
		return fresh, nil
	}
	if msg.Metadata == nil {
		msg.Metadata = message.Metadata{}
	}
	return msg, nil
}
