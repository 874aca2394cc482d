package tests

import (
	"crypto/sha256"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func only() string { return os.Getenv("ENGINES") }

// receive returns the next message, or fails.
func receive(t *testing.T, messages <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg, open := <-messages:
		require.True(t, open, "the subscription has ended")
		return msg
	case <-time.After(patience):
		require.Fail(t, "no message comes")
		return nil
	}
}

// silence fails if a message comes within d: real time is the subject.
func silence(t *testing.T, messages <-chan *message.Message, d time.Duration) {
	t.Helper()
	select {
	case msg := <-messages:
		if msg != nil {
			assert.Fail(t, "a message comes that must not", "%s", msg.Payload)
		}
	case <-time.After(d):
	}
}

func TestKey_OneAtATimeInOrderAndOthersBeside(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		const keys, each = 8, 25
		e := f.open("group=g&key=k&max_in_flight=16")
		messages := f.subscribe(e, "g")
		go f.publish(e, 0, keys*each, keys) // ends with the last message, before the test does
		var mu sync.Mutex
		var handlers sync.WaitGroup
		seen, busy := map[string][]int{}, map[string]bool{}
		var beside atomic.Int32
		for range keys * each {
			msg := receive(t, messages)
			handlers.Go(func() {
				key := msg.Metadata.Get("k")
				number, _ := strconv.Atoi(string(msg.Payload))
				mu.Lock()
				assert.False(t, busy[key], "two of key %s at a time", key)
				busy[key] = true
				seen[key] = append(seen[key], number)
				if len(busy) > 1 {
					beside.Add(1)
				}
				mu.Unlock()
				time.Sleep(rand.N(3 * time.Millisecond)) // handlers take their time
				mu.Lock()
				delete(busy, key)
				mu.Unlock()
				msg.Ack()
			})
		}
		handlers.Wait()
		for key, numbers := range seen {
			assert.IsIncreasing(t, numbers, "key %s", key)
			assert.Len(t, numbers, each)
		}
		assert.Positive(t, beside.Load(), "keys wait for one another")
	})
}

func TestNack_WaitsAndDoubles(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		e := f.open("group=g&nack_delay=200ms")
		messages := f.subscribe(e, "g")
		f.publish(e, 0, 1, 0)
		receive(t, messages).Nack()
		began := time.Now()
		receive(t, messages).Nack()
		assert.GreaterOrEqual(t, time.Since(began), 190*time.Millisecond)
		began = time.Now()
		msg := receive(t, messages)
		assert.GreaterOrEqual(t, time.Since(began), 380*time.Millisecond)
		msg.Ack()
		silence(t, messages, 100*time.Millisecond)
	})
}

func TestNack_KeepsTheOrderOfItsKeyAndHoldsUpNoOther(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		e := f.open("group=g&key=k&max_in_flight=8&nack_delay=5s")
		messages := f.subscribe(e, "g")
		f.publish(e, 0, 6, 2)
		nacked := false
		var even, odd []string
		for len(even)+len(odd) < 6 {
			msg := receive(t, messages)
			if !nacked && string(msg.Payload) == "0" {
				nacked = true
				msg.Nack()
				continue
			}
			if msg.Metadata.Get("k") == "0" {
				assert.Len(t, odd, 3, "the other key waited")
				even = append(even, string(msg.Payload))
			} else {
				odd = append(odd, string(msg.Payload))
			}
			msg.Ack()
		}
		assert.Equal(t, []string{"0", "2", "4"}, even)
		assert.Equal(t, []string{"1", "3", "5"}, odd)
	})
}

func TestAttempts_EndInTheDeadLetterTopic(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		e := f.open("group=g&nack_delay=1ms&attempts=3&dead_letter=dead-" + f.topic)
		dead := &fixture{T: t, subject: f.subject, topic: "dead-" + f.topic}
		letters := dead.subscribe(e, "undertaker")
		messages := f.subscribe(e, "g")
		f.publish(e, 0, 2, 0)
		for range 3 {
			msg := receive(t, messages)
			if string(msg.Payload) != "0" { // partitions have no common order
				msg.Ack()
				msg = receive(t, messages)
			}
			msg.Nack()
		}
		letter := receive(t, letters)
		letter.Ack()
		assert.Equal(t, "0", string(letter.Payload))
		assert.Equal(t, f.topic, letter.Metadata.Get(middleware.PoisonedTopicKey))
		assert.NotEmpty(t, letter.Metadata.Get(middleware.ReasonForPoisonedKey))
	})
}

func TestMaxInFlight_IsABound(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		e := f.open("group=g&max_in_flight=5")
		messages := f.subscribe(e, "g")
		go f.publish(e, 0, 20, 0) // ends when all are taken, before the test does
		var held []*message.Message
		for range 5 {
			held = append(held, receive(t, messages))
		}
		silence(t, messages, 200*time.Millisecond)
		for taken := 5; len(held) > 0; {
			held[0].Ack()
			held = held[1:]
			if taken < 20 {
				held = append(held, receive(t, messages))
				taken++
			}
		}
	})
}

func TestGroup_EachGetsAllAndMembersShare(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		const n = 60
		e := f.open("max_in_flight=4")
		groups := map[string][]<-chan *message.Message{"a": {f.subscribe(e, "a")}, "b": {f.subscribe(e, "b")}}
		if f.name != "gochannel" {
			groups["a"] = append(groups["a"], f.subscribe(e, "a"))
		}
		var wg sync.WaitGroup
		got := map[string]*sync.Map{}
		for group, members := range groups {
			got[group] = &sync.Map{}
			var left atomic.Int32
			left.Store(n)
			done := make(chan struct{})
			for _, messages := range members {
				wg.Go(func() {
					for {
						select {
						case msg := <-messages:
							_, twice := got[group].LoadOrStore(string(msg.Payload), true)
							msg.Ack()
							if !twice && left.Add(-1) == 0 {
								close(done)
							}
						case <-done:
							return
						case <-time.After(patience):
							assert.Fail(t, "not all come", "%s: %d are missing", group, left.Load())
							return
						}
					}
				})
			}
		}
		f.publish(e, 0, n, 0)
		wg.Wait()
	})
}

func TestGroup_OneMemberAtMostInGoChannel(t *testing.T) {
	s := subjects()[0]
	f := &fixture{T: t, subject: s, base: s.base(t), topic: "t"}
	e := f.open("")
	f.subscribe(e, "g")
	sub, err := e.Group("g")
	require.NoError(t, err)
	_, err = sub.Subscribe(t.Context(), "t")
	assertUnsupported(t, err, "gochannel", "group")
}

func TestNoGroup_GetsWhatIsPublishedWhileItLives(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		e := f.open("")
		if f.lasting && f.name != "amqp" { // whose Publish waits for a group
			f.publish(e, 0, 5, 0)
		}
		first, second := f.subscribe(e, ""), f.subscribe(e, "")
		f.publish(e, 5, 6, 0)
		for _, messages := range []<-chan *message.Message{first, second} {
			msg := receive(t, messages)
			assert.Equal(t, "5", string(msg.Payload))
			msg.Ack()
		}
	})
}

func TestStart_AllOrNew(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		if !f.lasting || f.name == "amqp" {
			_, err := f.tryOpen("start=new")
			assertUnsupported(t, err, f.name, "start")
			return
		}
		e, late := f.open("start=all"), f.open("start=new")
		f.publish(e, 0, 3, 0)
		fresh := f.subscribe(late, "new")
		f.publish(e, 3, 4, 0)
		msg := receive(t, fresh)
		assert.Equal(t, "3", string(msg.Payload))
		msg.Ack()
		all := f.subscribe(e, "all")
		for range 4 {
			receive(t, all).Ack()
		}
	})
}

func TestMessage_OfAMegabyteAndWithAnyName(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		f.topic += ".größe/заказы 注文 *>#?%00"
		f.topic = strings.ReplaceAll(f.topic, "?", "")
		e := f.open("max_message_size=2097152")
		messages := f.subscribe(e, "Gruppe 一")
		payload := make([]byte, 1<<20)
		for i := range payload {
			payload[i] = byte(i * 31 >> 3)
		}
		sent := message.NewMessage(watermill.NewUUID(), payload)
		sent.Metadata = message.Metadata{"plain": "value", "Größe: 1": " a\nb\r\n\x00ü ", "empty": "", "Nats-Msg-Id": "mine"}
		require.NoError(t, e.Publisher().Publish(f.topic, sent))
		got := receive(t, messages)
		got.Ack()
		assert.Equal(t, sent.UUID, got.UUID)
		assert.Equal(t, sha256.Sum256(payload), sha256.Sum256(got.Payload))
		assert.Equal(t, sent.Metadata, got.Metadata)
	})
}

func TestMessage_EmptyIsAMessage(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		e := f.open("")
		messages := f.subscribe(e, "g")
		require.NoError(t, e.Publisher().Publish(f.topic, message.NewMessage("id", nil)))
		got := receive(t, messages)
		got.Ack()
		assert.Equal(t, "id", got.UUID)
		assert.Empty(t, got.Payload)
		assert.Empty(t, got.Metadata)
	})
}
