package tests

import (
	"bytes"
	"errors"
	"fmt"
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

// requireSoon is requireResult for a call that is bounded by a time-out of 200 ms, and not by one that is as long as by default.
func requireSoon(t *testing.T, result <-chan error) error {
	t.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(buffstreams.DefaultCloseTimeout * 9 / 10): // a machine that is busy makes seconds of 200 ms
		require.Fail(t, "not within its time-out")
	}
	return nil
}

// TestSubscriber_RedeliveryHasTheBytesThatArrived, whatever a handler, an Unmarshaler or a dead letter's publisher wrote.
func TestSubscriber_RedeliveryHasTheBytesThatArrived(t *testing.T) {
	t.Parallel()
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
		"acked already": func(data []byte) (*message.Message, error) {
			msg := message.NewMessage("", data)
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
