package buffstreams

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/hook"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// revocable is a source whose messages can be called back, and that counts what comes.
type revocable struct {
	bubbleSource
	revoked  bool
	returned int
	refused  []dispatch.Refusal
}

func (r *revocable) Revoked() bool                          { return r.revoked }
func (r *revocable) Returned(first, last uint64, _ bool)    { r.returned += int(last - first + 1) }
func (r *revocable) Refused(_ uint64, why dispatch.Refusal) { r.refused = append(r.refused, why) }

// stillPump is a pump that runs nothing by itself, of a group that has got so many messages.
func stillPump(t *testing.T, n int, cfg SubscriberConfig) (*pump, *bubbleTopic, *revocable) {
	t.Helper()
	topic, source := newBubbleTopic(t), &revocable{}
	cfg.Unmarshaler, cfg.ConsumerGroup = RawMarshaler{}, "g"
	cfg.setDefaults()
	p := &pump{subscription: &subscription{
		subscriber: &Subscriber{cfg: cfg, manager: &Manager{}, logger: watermill.NopLogger{}}, topic: "orders", wireTopic: "orders",
		out: make(chan *message.Message, n), wake: make(chan struct{}, 1), closing: make(chan struct{}), halted: make(chan struct{}),
		base: t.Context(), member: topic.Join("g", func() {}), trusted: true, drains: true,
	}}
	topic.from = source
	topic.feed(n)
	return p, topic, source
}

// nackOne leaves the next message with the pump to be emitted once more.
func nackOne(t *testing.T, p *pump) {
	t.Helper()
	d, _, ok := p.member.Take()
	require.True(t, ok)
	p.watched.Add(1)
	p.member.Keep(&d)
	require.True(t, p.redeliver(d))
}

// flying are the messages in flight, in order.
func (p *pump) flying() (all []*message.Message) {
	for _, f := range p.inFlight {
		all = append(all, f.msg)
	}
	return all
}

// What handlers have stays with them when messages are called back, and so does what is offered and was not called back, in order.
func TestRecall_LeavesWithHandlersWhatTheyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, topic, source := stillPump(t, 5, SubscriberConfig{})
		p.fill()
		all := p.flying()
		require.Len(t, all, 5)
		<-p.out
		<-p.out
		p.recall()
		require.Equal(t, all, p.flying(), "nothing was called back")
		require.Len(t, p.out, 3)

		source.revoked = true
		topic.Withdraw(source)
		require.True(t, p.member.Recalled())
		p.recall()
		require.Equal(t, all[:2], p.flying())
		require.Empty(t, p.out)
		require.Equal(t, 3, source.returned)
		all[1].Ack()
		all[0].Ack()
		p.reap()
		p.settle()
		require.Empty(t, p.inFlight)
		require.EqualValues(t, 2, source.settled.Load())
	})
}

// What the pump has settled, given back or left to watchers, it holds no longer: its memory is used again, or is the collector's.
func TestPump_HoldsNothingThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, source := stillPump(t, 6, SubscriberConfig{})
		p.fill()
		for range 3 {
			(<-p.out).Ack()
		}
		p.reap()
		p.settle()
		require.EqualValues(t, 3, source.settled.Load())
		require.Len(t, p.takeBack(), 3)
		for _, d := range p.acked[:cap(p.acked)] {
			require.Zero(t, d)
		}
		for _, f := range p.inFlight[:cap(p.inFlight)] {
			require.Zero(t, f)
		}
	})
}

// A message that waits to be emitted once more is given back if it was called back meanwhile, and is watched no longer.
func TestRedelivery_OfWhatWasCalledBackIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, topic, source := stillPump(t, 2, SubscriberConfig{})
		for range 2 {
			nackOne(t, p)
		}
		source.revoked = true
		topic.Withdraw(source)
		_, ok := p.nextRedelivery()
		require.False(t, ok)
		require.Zero(t, p.watched.Load())
		require.Equal(t, 2, source.returned)
	})
}

// A message whose later attempt cannot be decoded has failed, and the next one is emitted.
func TestRedelivery_OfWhatCannotBeDecodedFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, source := stillPump(t, 2, SubscriberConfig{})
		p.trusted = false
		p.subscriber.cfg.Unmarshaler = unmarshalFunc(func(data []byte) (*message.Message, error) {
			if string(data) == "0" {
				return nil, errBlocked
			}
			return message.NewMessage("", data), nil
		})
		for range 2 {
			nackOne(t, p)
		}
		f, ok := p.nextRedelivery()
		require.True(t, ok)
		require.Equal(t, "1", string(f.msg.Payload))
		p.watchers.Wait()
		require.Len(t, source.refused, 1)
		require.True(t, source.refused[0].Undecodable)
		require.Zero(t, p.watched.Load())
	})
}

// A drain gives back the nacked messages that their sender keeps, and none of those that exist nowhere else.
func TestDrain_KeepsRedeliveriesOfASenderThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, source := stillPump(t, 1, SubscriberConfig{})
		source.gone.Store(true)
		nackOne(t, p)
		p.giveBackKept()
		require.EqualValues(t, 1, p.watched.Load())
		f, ok := p.nextRedelivery()
		require.True(t, ok)
		require.Equal(t, "0", string(f.msg.Payload))
	})
}

// A message that was nacked while its subscription drains is emitted again, with a pause or without, if nothing else has it.
func TestDrain_RetriesWhatASenderThatIsGoneHadSent(t *testing.T) {
	for _, pause := range []time.Duration{0, time.Millisecond} {
		for _, gone := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				p, _, source := stillPump(t, 1, SubscriberConfig{})
				source.gone.Store(gone)
				d, _, ok := p.member.Take()
				require.True(t, ok)
				close(p.closing)
				require.Equal(t, gone, p.sleep(pause, &d))
			})
		}
	}
}

// Who follows each message in the log sees that the ones that were offered went back.
func TestLog_TracesWhatIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, _ := stillPump(t, 2, SubscriberConfig{})
		log := traceLog{testkit.NewLog()}
		p.traces, p.subscriber.logger = true, log
		p.fill()
		<-p.out
		offered := p.inFlight[1].msg.UUID
		p.takeBack()
		require.Equal(t, []string{"Message delivered 1 <nil>", "Delivery ended 1 given back"}, outcomes(linesOf(log.Log), offered))
	})
}

// The hooks hear of a message that took long as of any other.
func TestHooks_HearOfWhatTookLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watch := &spy{}
		topic := newBubbleTopic(t)
		sub := topic.subscribe(t.Context(), SubscriberConfig{MaxInFlight: 2, AckWaitTimeout: time.Minute})
		synctest.Wait()
		sub.subscriber.manager.hooks = hook.NewSet([]hooks.Hook{watch}, watermill.NopLogger{})
		topic.feed(1)
		msg := next(t, sub)
		time.Sleep(time.Second)
		require.EqualValues(t, 1, sub.watched.Load())
		msg.Ack()
		synctest.Wait()
		told := of[hooks.Handled](watch)
		require.Len(t, told, 1)
		require.Equal(t, []any{"orders", "g", 1, 1}, []any{told[0].Topic, told[0].Group, told[0].Messages, told[0].Bytes})
		require.GreaterOrEqual(t, told[0].Age, time.Second)
	})
}

// Of an Unmarshaler that fails and a Key that does too, the first says why.
func TestDecode_TheFirstFailureIsTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, _ := stillPump(t, 1, SubscriberConfig{Key: func(*message.Message) string { panic("no key") }})
		d, _, ok := p.member.Take()
		require.True(t, ok)
		msg, _, err := p.decode(&d, true)
		var panicked *hook.PanicError
		require.ErrorAs(t, err, &panicked)
		require.Equal(t, err.Error(), msg.Metadata.Get(UndecodableKey))
		p.trusted = false
		p.subscriber.cfg.Unmarshaler = unmarshalFunc(func([]byte) (*message.Message, error) { return nil, errBlocked })
		msg, _, err = p.decode(&d, true)
		require.ErrorIs(t, err, errBlocked)
		require.Equal(t, errBlocked.Error(), msg.Metadata.Get(UndecodableKey))
	})
}

// A message that an Unmarshaler has returned before has all that it had, but a new answer.
func TestUsable_MakesAnAnswerOfItsOwn(t *testing.T) {
	for name, spoil := range map[string]func(*message.Message){
		"acked": func(m *message.Message) { m.Ack() }, "nacked": func(m *message.Message) { m.Nack() },
		"emitted": func(m *message.Message) { m.SetContext(&messageContext{}) },
		"literal": func(m *message.Message) { *m = message.Message{UUID: m.UUID, Payload: m.Payload, Metadata: m.Metadata} },
		"nothing": func(m *message.Message) { m.Metadata = nil },
	} {
		msg := textMessage("order")
		msg.Metadata.Set("key", "value")
		spoil(msg)
		want := msg.Metadata.Get("key")
		got, err := usable(msg)
		require.NoError(t, err, name)
		require.Equal(t, name == "nothing", got == msg, name)
		require.Equal(t, msg.UUID, got.UUID, name)
		require.Equal(t, msg.Payload, got.Payload, name)
		require.Equal(t, want, got.Metadata.Get("key"), name)
		require.True(t, got.Ack(), name)
		got.Metadata.Set("more", "value")
	}
	_, err := usable(nil)
	require.ErrorIs(t, err, errNoMessageDecoded)
}
