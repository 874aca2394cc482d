package tests

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
)

func keyed(c *buffstreams.SubscriberConfig) {
	c.MaxInFlight = 8
	c.Key = func(msg *message.Message) string { return msg.Metadata.Get("key") }
}

func keyedMessages(keys, count int) (msgs []*message.Message) {
	for i := range count {
		for k := range keys {
			msg := newMessage(fmt.Sprint(i))
			msg.Metadata.Set("key", fmt.Sprint(k))
			msgs = append(msgs, msg)
		}
	}
	return msgs
}

// keyChecker holds that of each key one message at a time is handled, and in order, however handlers interleave.
type keyChecker struct {
	t *testing.T

	mu   sync.Mutex
	busy map[string]bool
	next map[string]int
}

func (c *keyChecker) handle(msg *message.Message) {
	key, nack := msg.Metadata.Get("key"), rand.IntN(10) == 0
	c.mu.Lock()
	assert.False(c.t, c.busy[key], "two messages of key %s at a time", key)
	assert.Equal(c.t, fmt.Sprint(c.next[key]), string(msg.Payload), "key %s is out of order", key)
	c.busy[key] = true
	c.mu.Unlock()
	for range rand.IntN(100) {
		_ = msg.Copy()
	}
	c.mu.Lock()
	c.busy[key] = false
	if !nack {
		c.next[key]++
	}
	c.mu.Unlock()
	if nack {
		msg.Nack()
	} else {
		msg.Ack()
	}
}

func TestKey_KeepsOrderAcrossTheGroup(t *testing.T) {
	const keys, count = 5, 200
	h := newHouse(t, buffstreams.ManagerConfig{})
	check := &keyChecker{t: t, busy: map[string]bool{}, next: map[string]int{}}
	var handlers, members sync.WaitGroup
	subs := []*buffstreams.Subscriber{h.newSubscriber(t, keyed), h.newSubscriber(t, keyed)}
	for _, sub := range subs {
		messages := subscribe(t, sub, h.topic("a"))
		members.Go(func() {
			for msg := range messages {
				handlers.Go(func() { check.handle(msg) })
			}
		})
	}
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	require.NoError(t, pub.Publish(h.topic("a"), keyedMessages(keys, count)...))
	for _, sub := range subs {
		require.NoError(t, sub.Close())
	}
	members.Wait()
	handlers.Wait()
	require.Len(t, check.next, keys)
	for _, n := range check.next {
		require.Equal(t, count, n)
	}
}

func TestKey_StuckHoldsUpNoOther(t *testing.T) {
	const keys, count = 5, 200
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, keyed), h.topic("a"))
	require.NoError(t, h.newPublisher(t, nil).Publish(h.topic("a"), keyedMessages(keys, count)...))
	var stuck *message.Message
	for handled := 0; handled < (keys-1)*count; {
		msg := receive(t, messages)
		switch key := msg.Metadata.Get("key"); {
		case key == "0":
			require.Equal(t, "0", string(msg.Payload))
			stuck = msg
			if !strings.HasSuffix(msg.UUID, "0") { // sometimes it sticks, mostly it is nacked
				msg.Nack()
			}
		default:
			handled++
			msg.Ack()
		}
	}
	require.NotNil(t, stuck)
	stuck.Nack()
	require.Len(t, receiveAcked(t, messages, count), count)
}
