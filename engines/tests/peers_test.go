package tests

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// TestOutage_ANodeIsAwayWhenATopicIsMade: a cluster that has too few nodes for a stream has enough when the last one is there, and what
// needs the topic waits for that.
func TestOutage_ANodeIsAwayWhenATopicIsMade(t *testing.T) {
	if only := only(); only != "" && only != "nats" {
		t.Skip("it is about NATS")
	}
	t.Parallel()
	nodes := startNodeProcesses(t)
	for _, c := range nodes.children {
		c.kill()
	}
	for i := range 2 { // which have heard nothing of the third since their start, and so count it for nothing
		nodes.children[i] = startChild(t, "nats-node", nodes.env[i]...)
	}
	for i := range 2 {
		require.Equal(t, "ready", nodes.children[i].next(t))
	}
	base := "nats://" + nodes.hosts
	f := &fixture{T: t, subject: subjectAt("nats", base), base: base, topic: "peers-" + watermill.NewShortUUID()}
	nc, err := natsgo.Connect(base, natsgo.MaxReconnects(-1))
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "probe", Subjects: []string{"probe"}, Replicas: 3})
		var refused *jetstream.APIError
		return errors.As(err, &refused) && refused.ErrorCode == 10005
	}, patience, 50*time.Millisecond)
	made := make(chan error, 1)
	sub, err := f.open("publish_timeout=50s").Group("g")
	require.NoError(t, err)
	go func() { made <- sub.(message.SubscribeInitializer).SubscribeInitialize(f.topic) }() // ends with its result
	select {
	case err := <-made:
		require.Fail(t, "it does not wait for the node", "%v", err)
	case <-time.After(time.Second): // real time is the subject
	}
	nodes.children[2] = startChild(t, "nats-node", nodes.env[2]...)
	require.NoError(t, <-made)
}
