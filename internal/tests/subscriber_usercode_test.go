package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// unmarshalFunc is an Unmarshaler.
type unmarshalFunc func(data []byte) (*message.Message, error)

func (f unmarshalFunc) Unmarshal(_ string, data []byte) (*message.Message, error) { return f(data) }

// letters is a publisher of dead letters.
type letters func(msg *message.Message) error

func (f letters) Publish(_ string, msgs ...*message.Message) error { return f(msgs[0]) }
func (letters) Close() error                                       { return nil }

// rawPublisher sends payloads as they are.
func (h *house) rawPublisher(t *testing.T) *buffstreams.Publisher {
	return h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Marshaler = buffstreams.RawMarshaler{} })
}

// requireSoon is requireResult for a call that is bounded by a time-out of 200 ms.
func requireSoon(t *testing.T, result <-chan error) error {
	t.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(1200 * time.Millisecond):
		require.Fail(t, "not within its time-out, plus a second")
	}
	return nil
}

// TestSubscriber_RedeliveryHasTheBytesThatArrived, whatever a handler, an Unmarshaler or a dead letter's publisher wrote.
func TestSubscriber_RedeliveryHasTheBytesThatArrived(t *testing.T) {
	want := []string{"small", "another in the same frame", string(bytes.Repeat([]byte("16"), 10<<10)), string(bytes.Repeat([]byte("large"), 60<<10))}
	scribble := func(b []byte) {
		for i := range b {
			b[i] = '!'
		}
	}
	for name, change := range map[string]func(c *buffstreams.SubscriberConfig){
		"envelope": func(*buffstreams.SubscriberConfig) {},
		"raw":      func(c *buffstreams.SubscriberConfig) { c.Unmarshaler = buffstreams.RawMarshaler{} },
		"an Unmarshaler that writes": func(c *buffstreams.SubscriberConfig) {
			c.Unmarshaler = unmarshalFunc(func(data []byte) (*message.Message, error) {
				defer scribble(data)
				return buffstreams.RawMarshaler{}.Unmarshal("", bytes.Clone(data))
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			dead := make(chan string, 10)
			cfg := func(c *buffstreams.SubscriberConfig) {
				c.MaxAttempts, c.DeadLetterTopic = 3, "dead"
				attempts := 0
				c.DeadLetter = letters(func(msg *message.Message) error {
					if attempts++; attempts%2 == 1 {
						scribble(msg.Payload)
						return errors.New("not yet")
					}
					dead <- string(msg.Payload)
					return nil
				})
				change(c)
			}
			other := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { change(c); c.ConsumerGroup = "other" }), h.topic("a"))
			messages := subscribe(t, h.newSubscriber(t, cfg), h.topic("a"))
			pub := h.rawPublisher(t)
			if name == "envelope" {
				pub = h.newPublisher(t, nil)
			}
			var msgs []*message.Message
			for _, payload := range want {
				msgs = append(msgs, newMessage(payload))
			}
			require.NoError(t, pub.Publish(h.topic("a"), msgs...))
			for _, payload := range want {
				for range 3 {
					msg := receive(t, messages)
					require.Equal(t, payload, string(msg.Payload))
					scribble(msg.Payload)
					msg.Nack()
				}
				require.Equal(t, payload, <-dead)
			}
			require.Equal(t, want, receiveAcked(t, other, len(want)))
		})
	}
}

// TestSubscriber_TakesWhatAnUnmarshalerReturns: a message that cannot be answered, or was answered before, is copied into one
// that can, and metadata can be added to.
func TestSubscriber_TakesWhatAnUnmarshalerReturns(t *testing.T) {
	cached := message.NewMessage("cached", nil)
	for name, unmarshal := range map[string]unmarshalFunc{
		"a literal": func(data []byte) (*message.Message, error) { return &message.Message{Payload: data}, nil },
		"a literal that was acked": func(data []byte) (*message.Message, error) {
			msg := &message.Message{Payload: data}
			msg.Ack()
			return msg, nil
		},
		"nacked already": func(data []byte) (*message.Message, error) {
			msg := message.NewMessage("", data)
			msg.Nack()
			return msg, nil
		},
		"no metadata": func(data []byte) (*message.Message, error) {
			msg := message.NewMessage("", data)
			msg.Metadata = nil
			return msg, nil
		},
		"the same each time": func(data []byte) (*message.Message, error) {
			cached.Payload = data
			return cached, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			dead := make(chan *message.Message, 10)
			messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
				c.Unmarshaler, c.MaxAttempts, c.DeadLetterTopic = unmarshal, 2, "dead"
				c.DeadLetter = letters(func(msg *message.Message) error { dead <- msg; return nil })
			}), h.topic("a"))
			require.NoError(t, h.rawPublisher(t).Publish(h.topic("a"), newMessages(4)...))
			for i := range 4 {
				if i%2 == 0 {
					msg := receive(t, messages)
					msg.Metadata.Set("key", "value")
					require.True(t, msg.Nack())
				}
				msg := receive(t, messages)
				require.Equal(t, fmt.Sprint(i), string(msg.Payload))
				if name != "the same each time" { // whose metadata the handler has written to
					require.Empty(t, msg.Metadata)
				}
				if i < 3 {
					require.True(t, msg.Ack())
				} else {
					require.True(t, msg.Nack())
					receive(t, messages).Nack()
					require.Equal(t, "3", string((<-dead).Payload))
				}
			}
		})
	}
}

// TestSubscriber_SenselessAnswersFailTheirMessage, and no other: not the process, the subscription or the connection.
func TestSubscriber_SenselessAnswersFailTheirMessage(t *testing.T) {
	for name, change := range map[string]func(c *buffstreams.SubscriberConfig, bad func([]byte) bool){
		"an Unmarshaler that panics": func(c *buffstreams.SubscriberConfig, bad func([]byte) bool) {
			c.Unmarshaler = unmarshalFunc(func(data []byte) (*message.Message, error) {
				if bad(data) {
					panic("oops")
				}
				return buffstreams.RawMarshaler{}.Unmarshal("", data)
			})
		},
		"an Unmarshaler that returns nil": func(c *buffstreams.SubscriberConfig, bad func([]byte) bool) {
			c.Unmarshaler = unmarshalFunc(func(data []byte) (*message.Message, error) {
				if bad(data) {
					return nil, nil
				}
				return buffstreams.RawMarshaler{}.Unmarshal("", data)
			})
		},
		"a Key that panics": func(c *buffstreams.SubscriberConfig, bad func([]byte) bool) {
			c.MaxInFlight, c.Unmarshaler = 4, buffstreams.RawMarshaler{}
			c.Key = func(msg *message.Message) string {
				if bad(msg.Payload) {
					panic("oops")
				}
				return "all"
			}
		},
	} {
		bad := func(data []byte) bool { return string(data) == "1" || string(data) == "2" }
		t.Run(name+", rejected", func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			failed, told := make(chan error, 10), make(chan string, 10)
			messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
				change(c, bad)
				c.OnFailure = func(msg *message.Message, reason error) {
					msg.Metadata.Set("key", "value")
					failed <- reason
					panic("oops")
				}
			}), h.topic("a"))
			pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
				c.Marshaler = buffstreams.RawMarshaler{}
				c.OnFailure = func(_ string, encoded []byte, _ error) { told <- string(encoded) }
			})
			_ = pub.Publish(h.topic("a"), newMessages(4)...) // which may be told at once
			require.Equal(t, []string{"0", "3"}, receiveAcked(t, messages, 2))
			for range 2 {
				var undecodable *buffstreams.UndecodableError
				require.ErrorAs(t, <-failed, &undecodable)
			}
			require.ElementsMatch(t, []string{"1", "2"}, []string{<-told, <-told})
		})
		t.Run(name+", emitted", func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
				change(c, bad)
				c.EmitUndecodable = true
			}), h.topic("a"))
			require.NoError(t, h.rawPublisher(t).Publish(h.topic("a"), newMessages(4)...))
			reasons := map[string]string{}
			for range 4 {
				msg := receive(t, messages)
				reasons[string(msg.Payload)] = msg.Metadata.Get(buffstreams.UndecodableKey)
				msg.Ack()
			}
			require.Len(t, reasons, 4)
			require.NotEmpty(t, reasons["1"])
			require.Empty(t, reasons["3"])
		})
	}
}

// TestSubscriber_UndecodableMessagesTakeTheirTurn: they count in MaxInFlight, so that a slow DeadLetter is not called for all
// of them side by side.
func TestSubscriber_UndecodableMessagesTakeTheirTurn(t *testing.T) {
	const inFlight = 3
	h := newHouse(t, buffstreams.ManagerConfig{})
	entered, release := make(chan struct{}, 100), make(chan struct{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.MaxInFlight, c.DeadLetterTopic = inFlight, "dead"
		c.DeadLetter = letters(func(*message.Message) error {
			entered <- struct{}{}
			<-release
			return nil
		})
	})
	subscribe(t, sub, h.topic("a"))
	var msgs []*message.Message
	for range 50 {
		msgs = append(msgs, newMessage("\xff\xff"))
	}
	require.NoError(t, h.rawPublisher(t).Publish(h.topic("a"), msgs...))
	for range inFlight {
		<-entered
	}
	select {
	case <-entered:
		require.Fail(t, "more at a time than MaxInFlight")
	case <-time.After(100 * time.Millisecond): // real time: nothing must happen
	}
	close(release)
	for range 50 - inFlight {
		<-entered
	}
}

// stuckStore is a DedupeStore whose Save does not return.
type stuckStore struct {
	entered chan struct{}
	release chan struct{}
}

func (stuckStore) Load(store.StreamID) (store.StreamState, bool, error) {
	return store.StreamState{}, false, nil
}

func (s stuckStore) Save(map[store.StreamID]store.StreamState) error {
	s.entered <- struct{}{}
	<-s.release
	return nil
}

func (stuckStore) Forget(store.StreamID) error { return nil }

// blocker is a callback that does not return until release is closed.
type blocker struct{ entered, release chan struct{} }

func (b blocker) block() {
	b.entered <- struct{}{}
	<-b.release
}

// stuckCallbacks block for each message whose payload is "stuck". Those that are nacked have MaxAttempts 1.
var stuckCallbacks = map[string]func(c *buffstreams.SubscriberConfig, block func()){
	"SubscriberConfig.Unmarshaler": func(c *buffstreams.SubscriberConfig, block func()) {
		c.Unmarshaler = unmarshalFunc(func(data []byte) (*message.Message, error) {
			msg, err := buffstreams.EnvelopeMarshaler{}.Unmarshal("", data)
			if string(msg.Payload) == "stuck" {
				block()
			}
			return msg, err
		})
	},
	"SubscriberConfig.Key": func(c *buffstreams.SubscriberConfig, block func()) {
		c.Key = func(msg *message.Message) string {
			if string(msg.Payload) == "stuck" {
				block()
			}
			return "key"
		}
	},
	"SubscriberConfig.DeadLetter": func(c *buffstreams.SubscriberConfig, block func()) {
		c.MaxAttempts, c.DeadLetterTopic = 1, "dead"
		c.DeadLetter = letters(func(*message.Message) error { block(); return nil })
	},
	"SubscriberConfig.OnFailure": func(c *buffstreams.SubscriberConfig, block func()) {
		c.MaxAttempts = 1
		c.OnFailure = func(*message.Message, error) { block() }
	},
}

// TestSubscriber_CloseLeavesStuckCallbacksBehind: it ends in its time, names the callback, and what that had goes back to the
// group. What the callback does later is in vain.
func TestSubscriber_CloseLeavesStuckCallbacksBehind(t *testing.T) {
	for name, change := range stuckCallbacks {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			b := blocker{make(chan struct{}, 10), make(chan struct{})}
			cfg := h.subscriber
			cfg.CloseTimeout, cfg.MaxInFlight = 200*time.Millisecond, 4
			change(&cfg, b.block)
			sub, err := buffstreams.NewSubscriber(cfg, nil)
			require.NoError(t, err)
			messages := subscribe(t, sub, h.topic("a"))
			require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("before"), newMessage("stuck"), newMessage("after")))
			before := receive(t, messages)
			require.Equal(t, "before", string(before.Payload))
			want := []string{"before", "stuck", "after"}
			if cfg.MaxAttempts > 0 {
				before.Ack()
				receive(t, messages).Nack()
				receiveAcked(t, messages, 1)
				want = []string{"stuck"}
			}
			<-b.entered
			first, second := later(sub.Close), later(sub.Close)
			require.ErrorContains(t, requireSoon(t, first), name)
			require.ErrorContains(t, requireSoon(t, second), name, "every Close says the same")
			_, open := <-messages
			require.False(t, open, "the channel is closed")
			next := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
			if cfg.OnFailure == nil { // which is only told that the message was rejected
				require.Equal(t, want, receiveAcked(t, next, len(want)))
			}
			close(b.release)
			require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("last")))
			require.Equal(t, []string{"last"}, receiveAcked(t, next, 1))
		})
	}
}

// TestSubscriber_CloseLeavesAStuckDedupeStoreBehind, and so does the Close of its Manager.
func TestSubscriber_CloseLeavesAStuckDedupeStoreBehind(t *testing.T) {
	for name, nap := range map[string]time.Duration{"the pump": 0, "a watcher": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			stuck := stuckStore{make(chan struct{}, 10), make(chan struct{})}
			sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
				CloseTimeout: 200 * time.Millisecond, MaxInFlight: 2, ListenAddress: "127.0.0.1:0",
				ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Dedupe: stuck}},
			}, nil)
			require.NoError(t, err)
			messages := subscribe(t, sub, "a")
			addr, err := sub.Addr("a")
			require.NoError(t, err)
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{CloseTimeout: time.Millisecond}, nil)
			require.NoError(t, err)
			require.NoError(t, pub.Publish(addr.String()+"/a", newMessage("x")))
			msg := receive(t, messages)
			time.Sleep(nap) // real time: a handler that is not prompt has a watcher
			msg.Ack()
			<-stuck.entered
			require.ErrorContains(t, requireSoon(t, later(sub.Close)), "AckedConfig.Dedupe")
			close(stuck.release)
			_ = pub.Close() // what was not acked is undelivered
		})
	}
}

// TestSubscriber_StuckCallbacksHoldUpOnlyTheirOwn: other topics of the Subscriber, other groups, and the other messages that
// MaxInFlight allows go on. A Key or Unmarshaler holds up its subscription.
func TestSubscriber_StuckCallbacksHoldUpOnlyTheirOwn(t *testing.T) {
	for name, change := range stuckCallbacks {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			b := blocker{make(chan struct{}, 10), make(chan struct{})}
			var own bool
			sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
				c.MaxInFlight = 2
				change(c, b.block)
				own = c.MaxAttempts > 0
			})
			messages, others := subscribe(t, sub, h.topic("a")), subscribe(t, sub, h.topic("b"))
			group := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.ConsumerGroup = "other" }), h.topic("a"))
			pub := h.newPublisher(t, nil)
			require.NoError(t, pub.Publish(h.topic("a"), newMessage("stuck")))
			if own {
				receive(t, messages).Nack()
			}
			<-b.entered
			require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")))
			require.NoError(t, pub.Publish(h.topic("b"), newMessage("y")))
			require.Equal(t, []string{"y"}, receiveAcked(t, others, 1))
			require.Equal(t, []string{"stuck", "x"}, receiveAcked(t, group, 2))
			if own {
				require.Equal(t, []string{"x"}, receiveAcked(t, messages, 1))
			}
			close(b.release)
			if !own {
				require.Equal(t, []string{"stuck", "x"}, receiveAcked(t, messages, 2))
			}
		})
	}
}

// TestSubscriber_AStuckKeyHoldsNoLock: another member of the group takes messages, in order, when the key is known, and its
// Close waits for nothing of the stuck one.
func TestSubscriber_AStuckKeyHoldsNoLock(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	b := blocker{make(chan struct{}, 10), make(chan struct{})}
	key := func(msg *message.Message) string {
		if string(msg.Payload) == "0" {
			b.block()
		}
		return "key"
	}
	change := func(c *buffstreams.SubscriberConfig) { c.MaxInFlight, c.Key = 4, key }
	stuck := subscribe(t, h.newSubscriber(t, change), h.topic("a"))
	pub := h.newPublisher(t, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("0")))
	<-b.entered
	cfg := h.subscriber
	change(&cfg)
	cfg.CloseTimeout = 200 * time.Millisecond
	member, err := buffstreams.NewSubscriber(cfg, nil)
	require.NoError(t, err)
	subscribe(t, member, h.topic("a"))
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("1"), newMessage("2")))
	require.NoError(t, requireSoon(t, later(member.Close)))
	close(b.release)
	require.Equal(t, []string{"0", "1", "2"}, receiveAcked(t, stuck, 3))
}

// TestSubscriber_CallbacksMayCallBack: they publish to the peer that they are called by, and subscribe there.
func TestSubscriber_CallbacksMayCallBack(t *testing.T) {
	for name, change := range stuckCallbacks {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			pub, plain := h.newPublisher(t, nil), h.newSubscriber(t, nil)
			copies := subscribe(t, plain, h.topic("copies"))
			result := make(chan error, 10)
			var sub *buffstreams.Subscriber
			sub = h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
				change(c, func() {
					_, err := sub.Subscribe(context.Background(), h.topic("more"))
					result <- errors.Join(err, pub.Publish(h.topic("copies"), newMessage("copy")))
				})
			})
			messages := subscribe(t, sub, h.topic("a"))
			require.NoError(t, pub.Publish(h.topic("a"), newMessage("stuck")))
			if msg := receive(t, messages); len(result) == 0 {
				msg.Nack()
			} else {
				msg.Ack()
			}
			require.NoError(t, <-result)
			require.Equal(t, []string{"copy"}, receiveAcked(t, copies, 1))
		})
	}
}

// TestSubscriber_CallbacksMayClose: Close waits for the callback that calls it no longer than CloseTimeout, and names it.
func TestSubscriber_CallbacksMayClose(t *testing.T) {
	for name, change := range stuckCallbacks {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			result := make(chan error, 10)
			cfg := h.subscriber
			cfg.CloseTimeout = 200 * time.Millisecond
			var sub *buffstreams.Subscriber
			change(&cfg, func() { result <- sub.Close() })
			sub, err := buffstreams.NewSubscriber(cfg, nil)
			require.NoError(t, err)
			messages := subscribe(t, sub, h.topic("a"))
			require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessage("stuck")))
			if cfg.MaxAttempts > 0 {
				receive(t, messages).Nack()
			}
			require.ErrorContains(t, requireSoon(t, result), name)
		})
	}
}

// TestSubscriber_CloseIsNoFailedAttempt: what handlers have when Close gives them up goes back, whatever MaxAttempts says,
// also if they nack it because their context was cancelled.
func TestSubscriber_CloseIsNoFailedAttempt(t *testing.T) {
	for name, change := range map[string]func(*buffstreams.SubscriberConfig){
		"MaxAttempts": func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 },
		"MaxAge":      func(c *buffstreams.SubscriberConfig) { c.MaxAge = 50 * time.Millisecond },
	} {
		for _, nacks := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", nacks: ", nacks), func(t *testing.T) {
				h := newHouse(t, buffstreams.ManagerConfig{})
				told := make(chan error, 10)
				pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) {
					c.OnFailure = func(_ string, _ []byte, err error) { told <- err }
				})
				sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
					change(c)
					c.CloseTimeout = 100 * time.Millisecond
				})
				messages := subscribe(t, sub, h.topic("a"))
				require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")))
				msg := receive(t, messages)
				if nacks {
					context.AfterFunc(msg.Context(), func() { msg.Nack() })
				}
				require.NoError(t, sub.Close())
				next := subscribe(t, h.newSubscriber(t, change), h.topic("a"))
				require.Equal(t, []string{"x"}, receiveAcked(t, next, 1))
				require.Empty(t, told)
			})
		}
	}
}

// TestSubscriber_CloseTakesItsTimeoutOnce, though it waits for handlers twice: for what exists nowhere else, and for the rest.
func TestSubscriber_CloseTakesItsTimeoutOnce(t *testing.T) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{CloseTimeout: time.Second, ListenAddress: "127.0.0.1:0"}, nil)
	require.NoError(t, err)
	messages := subscribe(t, sub, "a")
	addr, err := sub.Addr("a")
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{CloseTimeout: time.Millisecond}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(addr.String()+"/a", newMessage("x")))
	_ = pub.Close()      // it leaves the message with the subscriber
	receive(t, messages) // by a handler that is stuck
	began := time.Now()
	_ = sub.Close()
	require.Less(t, time.Since(began), 1800*time.Millisecond)
	require.Greater(t, time.Since(began), 900*time.Millisecond, "the handler has its time")
}

// TestSubscriber_AckWaitBeginsWithTheHandler: decorators that hold messages until the handler is through with those before
// take nothing of the handler's time.
func TestSubscriber_AckWaitBeginsWithTheHandler(t *testing.T) {
	for decorators := range 4 {
		t.Run(fmt.Sprint(decorators), func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, buffstreams.ManagerConfig{})
			var sub message.Subscriber = h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
				c.MaxInFlight, c.AckWaitTimeout = 4, 400*time.Millisecond
			})
			for range decorators {
				var err error
				sub, err = message.MessageTransformSubscriberDecorator(func(*message.Message) {})(sub)
				require.NoError(t, err)
			}
			messages, err := sub.Subscribe(t.Context(), h.topic("a"))
			require.NoError(t, err)
			require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(8)...))
			for i := range 8 {
				msg := receive(t, messages)
				require.Equal(t, fmt.Sprint(i), string(msg.Payload), "nothing is emitted again")
				time.Sleep(200 * time.Millisecond) // real time is the subject
				msg.Ack()
			}
		})
	}
}

// TestSubscriber_AckWaitIsSideBySide: of handlers that were seen to work side by side each has the same time.
func TestSubscriber_AckWaitIsSideBySide(t *testing.T) {
	const handlers, wait = 8, 500 * time.Millisecond
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.MaxInFlight, c.AckWaitTimeout = handlers, wait
	}), h.topic("a"))
	pub := h.newPublisher(t, nil)
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(handlers)...))
	var first []*message.Message
	for range handlers {
		first = append(first, receive(t, messages))
	}
	first[handlers-1].Ack()           // before all others
	time.Sleep(50 * time.Millisecond) // real time: so long that it is seen
	for _, msg := range first[:handlers-1] {
		msg.Ack()
	}
	require.NoError(t, pub.Publish(h.topic("a"), newMessages(handlers)...))
	var stuck []*message.Message
	for range handlers {
		stuck = append(stuck, receive(t, messages))
	}
	began := time.Now()
	for _, msg := range stuck {
		<-msg.Context().Done()
	}
	require.Less(t, time.Since(began), 3*wait)
	receiveAcked(t, messages, handlers)
}

// TestSubscriber_DeadLetterThatPanicsIsTriedAgain, as one that fails.
func TestSubscriber_DeadLetterThatPanicsIsTriedAgain(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	var calls atomic.Int32
	dead := make(chan string, 1)
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) {
		c.MaxAttempts, c.DeadLetterTopic = 1, "dead"
		c.DeadLetter = letters(func(msg *message.Message) error {
			if calls.Add(1) == 1 {
				panic("oops")
			}
			dead <- string(msg.Payload)
			return nil
		})
	}), h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), newMessages(2)...))
	receive(t, messages).Nack()
	require.Equal(t, "0", <-dead)
	require.Equal(t, []string{"1"}, receiveAcked(t, messages, 1))
}
