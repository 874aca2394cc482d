package bridge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// lane publishes one batch at a time, so that what it carries keeps its order whatever fails.
type lane struct {
	*pipe
	in chan []*held
	// waiting are those that have come and are in no batch yet.
	waiting []*held
	// batch are the messages of one call.
	batch []*message.Message
	// halted tells that a message stays at the source, and so does what is behind it.
	halted  bool
	trouble *driver.Trouble
}

func (l *lane) run(delivering context.Context) {
	for {
		if len(l.waiting) == 0 {
			var open bool
			if l.waiting, open = <-l.in; !open {
				return
			}
		}
		l.take()
		n := l.cut()
		l.deliver(delivering, l.waiting[:n:n])
		l.waiting = l.waiting[n:]
	}
}

// take adds what is there, up to a batch.
func (l *lane) take() {
	for len(l.waiting) < l.b.cfg.Batch {
		select {
		case more, open := <-l.in:
			if !open {
				return
			}
			l.waiting = append(l.waiting, more...)
		default:
			return
		}
	}
}

// cut returns how many of those that wait are the next batch. A message that is too large is a batch of its own, so
// that those before it are delivered whatever becomes of it.
func (l *lane) cut() int {
	size := l.waiting[0].size
	if l.tooLarge(size) {
		return 1
	}
	n := 1
	for ; n < min(len(l.waiting), l.b.cfg.Batch); n++ {
		own := l.waiting[n].size
		if size += own; size > l.b.cfg.BatchBytes || l.tooLarge(own) {
			break
		}
	}
	return n
}

func (l *lane) tooLarge(size int) bool {
	return l.b.cfg.MaxMessageSize > 0 && size > l.b.cfg.MaxMessageSize
}

// deliver publishes a batch until each message is confirmed, or became a dead letter, and acks it then.
func (l *lane) deliver(ctx context.Context, left []*held) {
	defer l.b.counts.inHand.Add(-int64(len(left)))
	if size := left[0].size; l.tooLarge(size) && !l.halted {
		err := fmt.Errorf("%w: %d bytes, the bridge's limit is %d", driver.ErrTooLarge, size, l.b.cfg.MaxMessageSize)
		l.publishDeadLetter(ctx, left[0], &driver.RefusedError{Engine: "bridge", Topic: l.topic.To, Err: err})
		return
	}
	defer func() { l.acks.nack(left...) }() // they stay at the source
	began, pause := time.Now(), 50*time.Millisecond
	for ctx.Err() == nil && !l.halted {
		err := l.publish(ctx, left)
		left = l.settle(ctx, left, err, began)
		if len(left) == 0 || l.halted {
			break
		}
		l.retrying(len(left), err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		pause = min(2*pause, 2*time.Second)
		if left = l.withoutThere(ctx, left); len(left) == 0 {
			break
		}
	}
}

// settle acks what the destination has confirmed, makes dead letters of what it refuses, and returns the rest. What is
// not confirmed holds up no acks from now on, as it can take long.
func (l *lane) settle(ctx context.Context, messages []*held, err error, began time.Time) (rest []*held) {
	if err == nil {
		l.confirmed(messages, time.Since(began))
		return nil
	}
	var there, refused []*held
	var reasons []error
	for i, err := range outcomes(len(messages), err) {
		switch h := messages[i]; {
		case err == nil:
			there = append(there, h)
		case errors.As(err, new(*driver.RefusedError)):
			refused, reasons = append(refused, h), append(reasons, err)
		default:
			rest = append(rest, h)
		}
	}
	l.acks.leave(refused...)
	l.acks.leave(rest...)
	l.confirmed(there, time.Since(began))
	for i, h := range refused {
		l.publishDeadLetter(ctx, h, reasons[i])
	}
	return rest
}

// confirmed acks messages that the destination has.
func (l *lane) confirmed(messages []*held, took time.Duration) {
	bytes := 0
	for _, h := range messages {
		bytes += h.size
	}
	l.seen.add(messages)
	l.acks.confirm(messages...)
	l.forwarded(len(messages), bytes, took)
}

// withoutThere acks the messages whose confirm was lost: those that are at the destination, as far as it can be asked.
func (l *lane) withoutThere(ctx context.Context, messages []*held) []*held {
	if l.b.cfg.LookBack <= 0 {
		return messages
	}
	ids, known := l.lookAgain(ctx)
	if !known {
		return messages
	}
	there := make(map[string]bool, len(ids))
	for _, id := range ids {
		there[id] = true
	}
	var left, found []*held
	for _, h := range messages {
		if there[driver.ID(h.msg)] {
			found = append(found, h)
		} else {
			left = append(left, h)
		}
	}
	l.confirmed(found, 0)
	return left
}

// outcomes are the errors of the messages of a call. An error that is not of single messages is of all.
func outcomes(n int, err error) []error {
	var each *driver.PublishError
	if errors.As(err, &each) && len(each.Errs) == n {
		return each.Errs
	}
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// errBehind means that a message waits for one before it.
var errBehind = errors.New("bridge: a message before it is not confirmed")

// publish publishes messages, one by one if the destination refuses them together.
func (l *lane) publish(ctx context.Context, held []*held) error {
	messages := l.batch[:0]
	for _, h := range held {
		messages = append(messages, h.msg)
	}
	l.batch = messages
	defer clear(messages)
	err := l.publishTogether(ctx, messages)
	var each *driver.PublishError
	var refused *driver.RefusedError
	if len(messages) == 1 || errors.As(err, &each) || !errors.As(err, &refused) {
		return err
	}
	errs := make([]error, len(messages))
	for i, msg := range messages {
		if errs[i] = l.publishTogether(ctx, []*message.Message{msg}); errs[i] == nil {
			continue
		}
		if !errors.As(errs[i], &refused) || l.b.cfg.DeadLetterTopic == "" {
			for i++; i < len(errs); i++ { // what follows must not come first
				errs[i] = errBehind
			}
			break
		}
	}
	return driver.NewPublishError(errs)
}

func (l *lane) publishTogether(ctx context.Context, messages []*message.Message) error {
	defer l.watch()()
	pub := l.b.to.Publisher()
	if withContext, ok := pub.(interface {
		PublishContext(ctx context.Context, topic string, messages ...*message.Message) error
	}); ok {
		return withContext.PublishContext(ctx, l.topic.To, messages...)
	}
	return pub.Publish(l.topic.To, messages...)
}

// publishDeadLetter makes a refused message a dead letter and acks it then, or ends the bridge where there is no place
// for it.
func (l *lane) publishDeadLetter(ctx context.Context, h *held, reason error) {
	msg := h.msg
	l.b.counts.refused.Add(1)
	l.call(func() {
		if l.b.cfg.Hooks.OnRefused != nil {
			l.b.cfg.Hooks.OnRefused(l.topic, msg, reason)
		}
	})
	if l.b.cfg.DeadLetterTopic == "" {
		l.halted = true
		l.acks.nack(h)
		l.b.end(fmt.Errorf("bridge: message %.100q stays at the source, set a topic for dead letters: %w", msg.UUID, reason))
		return
	}
	letter := message.NewMessage(msg.UUID, msg.Payload)
	for k, v := range msg.Metadata {
		letter.Metadata.Set(k, v)
	}
	letter.Metadata.Set(middleware.ReasonForPoisonedKey, reason.Error())
	letter.Metadata.Set(middleware.PoisonedTopicKey, l.topic.From)
	trouble := driver.Trouble{Logger: l.b.cfg.Logger, What: "Cannot publish a dead letter; trying again", Over: "The dead letter is published"}
	for ctx.Err() == nil {
		err := l.b.cfg.DeadLetter.Publish(l.b.cfg.DeadLetterTopic, letter)
		if err == nil {
			trouble.Worked()
			l.acks.confirm(h)
			return
		}
		trouble.Failed(err, watermill.LogFields{"uuid": msg.UUID})
		timer := time.NewTimer(time.Second)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	l.acks.nack(h)
}

// forwarded notes what the destination has confirmed.
func (l *lane) forwarded(messages, bytes int, took time.Duration) {
	if messages == 0 {
		return
	}
	l.b.note(nil)
	l.trouble.Worked()
	l.b.counts.forwarded.Add(int64(messages))
	l.b.counts.bytes.Add(int64(bytes))
	l.call(func() {
		if l.b.cfg.Hooks.OnForward != nil {
			l.b.cfg.Hooks.OnForward(l.topic, messages, bytes, took)
		}
	})
}

// retrying notes what the destination has not confirmed.
func (l *lane) retrying(messages int, err error) {
	l.b.note(err)
	l.b.counts.retries.Add(1)
	l.trouble.Failed(err, watermill.LogFields{"topic": l.topic.To, "messages": messages})
	l.call(func() {
		if l.b.cfg.Hooks.OnRetry != nil {
			l.b.cfg.Hooks.OnRetry(l.topic, messages, err)
		}
	})
}

// call calls code of the user's.
func (l *lane) call(hook func()) {
	defer func() {
		if p := recover(); p != nil {
			l.b.cfg.Logger.Error("A hook has panicked", fmt.Errorf("bridge: %v", p), nil)
		}
	}()
	hook()
}
