package buffstreams

import (
	"github.com/buffstreams/watermill-buffstreams/internal/policy"
	"github.com/buffstreams/watermill-buffstreams/route"

	"fmt"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
)

// FuzzTopicName reads names as topics. What is an address says so in one way only: written out again it is the same, and
// what it names can travel.
func FuzzTopicName(f *testing.F) {
	for _, seed := range []string{
		"127.0.0.1:5031", ":5031/orders/eu", "tcp://[::1]:5031/orders", "tls://example.com:443/a", "unix:///run/s.sock#orders",
		"orders", "a:b:1", "http://a:1/x", "unix://a#b", "tls://:x", "tcp://a:1/\xff", "://", ":0", "[::1]:70000", "x:1/\r\nGET",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		d, ok, err := parseTopic(topic, false)
		if err != nil {
			require.ErrorIs(t, err, ErrBadTopic)
			require.False(t, ok)
			require.Less(t, len(err.Error()), 1200, "a name of any length makes a short error")
			return
		}
		target, err := parseAddress(topic)
		require.Equal(t, ok && d.name == "", err == nil)
		if !ok {
			return
		}
		address := formatAddress(d.target)
		again, err := parseAddress(address)
		if d.target.Network == "unix" || d.target.Network == "tcp" {
			require.NoError(t, err, "%q comes from %q", address, topic)
			require.Equal(t, d.target, again)
		}
		if d.name == "" {
			require.Equal(t, d.target, target)
		}
		if checkName(d.name) == nil {
			require.LessOrEqual(t, len(d.name), maxName)
		}
	})
}

// FuzzRoute resolves topics and picks an address of the route: the same one for the same key, and always one there is.
func FuzzRoute(f *testing.F) {
	f.Add("orders", "key", uint8(3), uint64(7))
	f.Add("", "", uint8(0), ^uint64(0))
	f.Fuzz(func(t *testing.T, topic, key string, addresses uint8, turn uint64) {
		r := route.Route{Policy: route.Hash, HashKey: "k"}
		for i := range int(addresses) + 1 {
			r.Addresses = append(r.Addresses, fmt.Sprintf("a:%d", i%200))
		}
		_, err := route.Static{}.Resolve(t.Context(), topic)
		require.ErrorIs(t, err, route.ErrNoRoute)
		got, err := route.Static{"*": {Name: "any"}, topic: r}.Resolve(t.Context(), topic)
		require.NoError(t, err)
		require.Equal(t, r, got)
		members := got.Members()
		slot := policy.Slot(key)
		require.Less(t, policy.AssignSlots(members)[slot], len(members))
		require.Equal(t, slot, policy.Slot(key))
		candidates, usable := make([]policy.Candidate, len(members)), make([]int, len(members))
		for i, m := range members {
			candidates[i], usable[i] = policy.Candidate{Member: m, State: policy.Ready}, i
		}
		idle := func(int) policy.Load { return policy.Load{} }
		require.Less(t, policy.PickRoundRobin(turn, candidates, usable, idle), len(members))
		require.Less(t, policy.PickLeastPending(turn, ^turn, candidates, usable, idle), len(members))
	})
}

// FuzzRaw is the plain wire's marshaler: bytes in, the same bytes out.
func FuzzRaw(f *testing.F) {
	f.Add([]byte{}, []byte("payload"))
	f.Fuzz(func(t *testing.T, before, payload []byte) {
		before = before[:len(before):len(before)] // what is behind it is not the marshaler's
		out, err := RawMarshaler{}.Marshal(before, "t", message.NewMessage("id", payload))
		require.NoError(t, err)
		require.Equal(t, append(append([]byte{}, before...), payload...), append([]byte{}, out...))
		msg, err := RawMarshaler{}.Unmarshal("t", payload)
		require.NoError(t, err)
		require.Equal(t, payload, []byte(msg.Payload))
		require.NotEmpty(t, msg.UUID)
	})
}
