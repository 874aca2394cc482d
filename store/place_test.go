package store

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTopicKey(t *testing.T) {
	for _, want := range []struct {
		topic       string
		group, slot int
	}{{"orders", 0, -1}, {"orders", 0, 0}, {"a#1/7", 2, 255}, {"", 1, -1}} {
		k := TopicKey(want.topic, "name", want.group, want.slot)
		topic, group, slot, ok := k.ByTopic()
		require.True(t, ok, k)
		require.Equal(t, want.topic, topic)
		require.Equal(t, []int{want.group, want.slot}, []int{group, slot})
		require.Equal(t, "name", k.Topic)
		require.Equal(t, TopicKey(want.topic, "", 0, 3).Account(), k.Account(), "one quota for the topic")
	}
	for _, address := range []string{"127.0.0.1:5000", "tls://a:1", "unix:///tmp/a#0", "topic:", "topic:x#y", "topic:x#0/"} {
		k := Key{Destination: address}
		_, _, _, ok := k.ByTopic()
		require.False(t, ok, address)
		require.Equal(t, address, k.Account())
	}
}
