package buffstreams

import (
	"time"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// nameHooks is what an error calls a hook that does not return.
const nameHooks = "ManagerConfig.Hooks"

// handled describes messages that were acked, before they are settled. It is empty if nothing watches that.
func (s *subscription) handled(ds ...dispatch.Delivery) (e hooks.Handled) {
	if !s.subscriber.manager.hooks.WatchesHandled() {
		return e
	}
	e = hooks.Handled{Topic: s.wireTopic, Group: s.subscriber.cfg.ConsumerGroup, Messages: len(ds)}
	var oldest time.Time
	for i := range ds {
		oldest = earlier(oldest, ds[i].Received())
		e.Bytes += ds[i].Size()
	}
	e.Age = time.Since(oldest)
	return e
}

// tellHandled tells the hooks of messages that were settled. If one of them has not returned when the subscription
// ends, the pump's goroutine is left behind.
func (p *pump) tellHandled(e hooks.Handled) {
	if e.Messages == 0 {
		return
	}
	p.code.enter(nameHooks)
	p.subscriber.manager.hooks.Handled(e)
	p.code.leave()
}

// tell calls hooks on a goroutine of their own, and waits for them as long as messages have time to be handled.
func (s *subscription) tell(call func(*hook.Set)) {
	if set := s.subscriber.manager.hooks; set != nil {
		_, _ = s.call(nameHooks, func() error { call(set); return nil })
	}
}

// traceDelivered logs a message that is emitted now.
func (s *subscription) traceDelivered(f flight) {
	s.subscriber.logger.Trace("Message delivered", s.fields(watermill.LogFields{
		"message_uuid": netio.Printable(f.msg.UUID), "delivery": f.ctx.delivery.Attempt + 1,
	}))
}

// traceEnded logs how a delivery has ended.
func (s *subscription) traceEnded(f flight, outcome string) {
	s.subscriber.logger.Trace("Delivery ended", s.fields(watermill.LogFields{
		"message_uuid": netio.Printable(f.msg.UUID), "delivery": f.ctx.delivery.Attempt + 1, "outcome": outcome,
	}))
}

// noteRedelivered counts a message that is delivered again after a delay, and tells of it.
func (s *subscription) noteRedelivered(attempt int, delay time.Duration) {
	s.redelivered.Add(1)
	s.subscriber.logger.Trace("Message is delivered again", s.fields(watermill.LogFields{"attempt": attempt, "delay": delay}))
	s.tell(func(set *hook.Set) {
		set.Redelivered(hooks.Redelivered{Topic: s.wireTopic, Group: s.subscriber.cfg.ConsumerGroup, Attempt: attempt, Delay: delay})
	})
}

// noteDead counts a message that has failed for good, and tells of it.
func (s *subscription) noteDead(to string, reason error) {
	s.deadLettered.Add(1)
	s.tell(func(set *hook.Set) {
		set.DeadLettered(hooks.DeadLettered{Topic: s.wireTopic, Group: s.subscriber.cfg.ConsumerGroup, To: to, Reason: reason})
	})
}
