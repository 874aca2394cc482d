package buffstreams

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
)

// The metadata keys of Watermill's poison queue (message/router/middleware/poison.go), by which its tools know a
// message.
const (
	poisonedReasonKey     = "reason_poisoned"
	poisonedTopicKey      = "topic_poisoned"
	poisonedSubscriberKey = "subscriber_poisoned"
)

// deadLetterRetry is the least wait between two attempts to publish a dead letter.
const deadLetterRetry = 100 * time.Millisecond

// UndecodableError is the reason of a failure: the Unmarshaler refused the message.
type UndecodableError struct{ Err error }

func (e *UndecodableError) Error() string {
	return fmt.Sprintf("buffstreams: cannot unmarshal: %v", e.Err)
}

func (e *UndecodableError) Unwrap() error { return e.Err }

// Is matches ErrUndecodable.
func (e *UndecodableError) Is(target error) bool { return target == ErrUndecodable }

// AttemptsExhaustedError is the reason of a failure: the message was delivered MaxAttempts times, or MaxAge has passed.
type AttemptsExhaustedError struct {
	Attempts int           // deliveries that ended without an ack
	Age      time.Duration // since the message was received
}

func (e *AttemptsExhaustedError) Error() string {
	return fmt.Sprintf("buffstreams: not handled in %d attempts within %v", e.Attempts, e.Age.Round(time.Millisecond))
}

// exhausted returns why a nacked message is not delivered again, or nil if it is.
func (s *subscription) exhausted(d dispatch.Delivery) error {
	cfg := &s.subscriber.cfg
	if cfg.MaxAttempts == 0 && cfg.MaxAge == 0 {
		return nil
	}
	age := time.Since(d.Received())
	if cfg.MaxAttempts > 0 && d.Attempt >= cfg.MaxAttempts || cfg.MaxAge > 0 && age >= cfg.MaxAge {
		return &AttemptsExhaustedError{Attempts: d.Attempt, Age: age}
	}
	return nil
}

// failAgain is fail for a message that was decoded before.
func (s *subscription) failAgain(d dispatch.Delivery, reason error) {
	msg, returned := (*message.Message)(nil), true
	if s.trusted {
		msg, _ = s.unmarshal(&d)
	} else {
		returned, _ = s.call(nameUnmarshaler, func() error { msg, _ = s.unmarshal(&d); return nil })
	}
	if !returned {
		s.giveBack(d)
		return
	}
	s.fail(d, msg, reason)
}

// fail ends a delivery whose message will not be handled: it publishes the message as a dead letter, or rejects it to
// its publisher. If that is gone and OnFailure is not set, the Manager answers for the message.
func (s *subscription) fail(d dispatch.Delivery, msg *message.Message, reason error) {
	cfg := &s.subscriber.cfg
	if cfg.DeadLetter != nil {
		s.publishDeadLetter(d, msg, reason)
		return
	}
	fields := s.fields(watermill.LogFields{"message_uuid": msg.UUID, "err": reason})
	var unheard func()
	if cfg.OnFailure == nil {
		topic, encoded := s.member.Topic().Name(), d.Message()
		unheard = func() { s.subscriber.manager.failures.add(topic, encoded, reason) }
	} else {
		returned, err := s.call(nameOnFailure, func() error { cfg.OnFailure(msg, reason); return nil })
		if !returned { // it answers for nothing
			s.giveBack(d)
			return
		}
		if err != nil {
			s.subscriber.logger.Error("OnFailure panicked", err, fields)
		}
	}
	s.subscriber.logger.Info("Message rejected to its publisher", fields)
	s.noteDead("", reason)
	_, undecodable := reason.(*UndecodableError) //nolint:errorlint // a handler's own error may wrap one
	s.member.Refuse(d, dispatch.Refusal{
		Undecodable: undecodable, TooLarge: undecodable && errors.Is(reason, ErrLimit), Reason: reason.Error(), Unheard: unheard,
		Bytes: d.Size(),
	})
}

// publishDeadLetter publishes a message to the dead letters, and tries again until that succeeds or the subscription
// closes.
func (s *subscription) publishDeadLetter(d dispatch.Delivery, msg *message.Message, reason error) {
	cfg := &s.subscriber.cfg
	msg.Metadata.Set(poisonedReasonKey, reason.Error())
	msg.Metadata.Set(poisonedTopicKey, s.topic)
	msg.Metadata.Set(poisonedSubscriberKey, "buffstreams.Subscriber")
	for attempt := 1; ; attempt++ {
		letter := msg.Copy()
		letter.Payload = bytes.Clone(msg.Payload) // the publisher may write to it
		returned, err := s.call(nameDeadLetter, func() error { return cfg.DeadLetter.Publish(cfg.DeadLetterTopic, letter) })
		if returned && err == nil {
			s.settle(d)
			s.noteDead(cfg.DeadLetterTopic, reason)
			return
		}
		if count, ok := s.deadLetters.Say(); returned && ok {
			s.subscriber.logger.Error("Cannot publish to the dead letters, trying again", err, s.fields(watermill.LogFields{
				"message_uuid": msg.UUID, "count": count,
			}))
		}
		if !returned || !s.sleep(max(s.delay(attempt), deadLetterRetry), &d) {
			s.giveBack(d)
			return
		}
	}
}
