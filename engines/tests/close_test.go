package tests

import (
	"strconv"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func messageOf(payload string) *message.Message {
	return message.NewMessage(watermill.NewUUID(), []byte(payload))
}

// TestClose_LetsHandlersEndAndGivesBackTheRest: what was in a handler at the end is acked and comes no more, the rest goes to
// the next member.
func TestClose_LetsHandlersEndAndGivesBackTheRest(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		if !f.lasting {
			t.Skip("what is not handled ends with the process")
		}
		pub := f.open("")
		first := f.open("group=g&max_in_flight=4&close_timeout=10s")
		messages := f.subscribe(first, "g")
		f.publish(pub, 0, 20, 0)
		held := []*message.Message{receive(t, messages), receive(t, messages)}
		closed := make(chan error, 1)
		go func() { closed <- first.Close() }() // ends when the messages are acked
		select {
		case <-closed:
			require.Fail(t, "Close does not wait for handlers")
		case <-time.After(200 * time.Millisecond): // real time is the subject
		}
		want := map[string]bool{}
		for i := range 20 {
			want[strconv.Itoa(i)] = true
		}
		for _, msg := range held {
			require.NoError(t, msg.Context().Err(), "a handler is told to end before its time")
			delete(want, string(msg.Payload))
			msg.Ack()
		}
		for msg := range messages { // those that were emitted at the same moment
			delete(want, string(msg.Payload))
			msg.Ack()
		}
		require.NoError(t, <-closed)
		rest := f.subscribe(f.open("group=g&max_in_flight=20"), "g")
		for len(want) > 0 {
			msg := receive(t, rest)
			assert.True(t, want[string(msg.Payload)], "%s comes again", msg.Payload)
			delete(want, string(msg.Payload))
			msg.Ack()
		}
		silence(t, rest, 300*time.Millisecond)
	})
}

// TestClose_EndsWithoutAcks: a handler that never acks holds up Close for close_timeout, and its message's context ends.
func TestClose_EndsWithoutAcks(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		e := f.open("group=g&close_timeout=300ms")
		messages := f.subscribe(e, "g")
		f.publish(e, 0, 1, 0)
		msg := receive(t, messages)
		began := time.Now()
		_ = e.Close() // this library says that a message is left
		assert.Less(t, time.Since(began), patience)
		select {
		case <-msg.Context().Done():
		case <-time.After(patience):
			assert.Fail(t, "the context does not end")
		}
	})
}

// TestKill_WhatWasInHandComesAgain: a member that dies without a word loses nothing.
func TestKill_WhatWasInHandComesAgain(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		if f.name == "gochannel" {
			t.Skip("everything of GoChannel ends with the process")
		}
		const n = 10
		parameters := f.url("group=g&max_in_flight=4")
		victim := startChild(t, "hold", "TEST_URL="+parameters, "TEST_TOPIC="+f.topic)
		require.Equal(t, "ready", victim.next(t))
		pub := f.open("")
		f.publish(pub, 0, n, 0)
		for range 4 {
			victim.next(t)
		}
		victim.kill()
		heir := startChild(t, "take", "TEST_URL="+parameters, "TEST_TOPIC="+f.topic)
		require.Equal(t, "ready", heir.next(t))
		got := map[string]bool{}
		for len(got) < n {
			line := heir.next(t)
			assert.False(t, got[line], "%s comes twice", line)
			got[line] = true
		}
	})
}
