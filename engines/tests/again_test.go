package tests

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// dropsNames are the engines that store a name once, under whatever client: what a bridge that was killed had sent to a
// destination that stood still is there once although the next bridge has looked back before it was stored, and has sent
// it again.
var dropsNames = map[string]bool{"nats": true}

// The second engine is another client, with a producer id of its own, as a bridge that was started again.
func TestBridge_WhatAKilledOneHadSentIsDroppedByName(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		if !f.lasting {
			t.Skip("it has no names of messages")
		}
		in := f.subscribe(f.open(onePartition(f)), "reader")
		for range 2 {
			again := messageOf("again")
			again.SetContext(driver.WithID(t.Context(), "a name"))
			require.NoError(t, f.open("").Publisher().Publish(f.topic, again))
		}
		require.NoError(t, f.open("").Publisher().Publish(f.topic, messageOf("last")))
		stored := 0
		for msg := receive(t, in); ; msg = receive(t, in) {
			msg.Ack()
			if string(msg.Payload) == "last" {
				break
			}
			stored++
		}
		want := 2
		if dropsNames[f.name] {
			want = 1
		}
		require.Equal(t, want, stored)
	})
}
