package batch_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/batch"
)

func TestRun_Mistakes(t *testing.T) {
	require.ErrorContains(t, batch.Run(t.Context(), nil, nil, batch.Config{}), "Handler")
	failed := func(context.Context, *message.Message, error) error { return nil }
	for field, cfg := range map[string]batch.Config{
		"Size": {Size: -1}, "Wait": {Wait: -2}, "Sleep": {Sleep: -1}, "SleepCap": {Sleep: 2, SleepCap: 1},
		"MaxAttempts": {MaxAttempts: -1}, "Failed": {Failed: failed},
	} {
		require.ErrorContains(t, batch.Run(t.Context(), nil, (&recorder{}).handle, cfg), "Config."+field)
	}
}

// It works with any Watermill subscriber. A GoChannel has one message unacked at a time: a batch has one.
func TestRun_GoChannel(t *testing.T) {
	ps := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: 10, BlockPublishUntilSubscriberAck: true}, watermill.NopLogger{})
	messages, err := ps.Subscribe(context.Background(), "a")
	require.NoError(t, err)
	r := &recorder{do: func(call int, _ []*message.Message) error {
		if call == 2 {
			return errWanted
		}
		return nil
	}}
	ended := make(chan error, 1)
	go func() { // Ends with Close.
		ended <- batch.Run(context.Background(), messages, r.handle, batch.Config{Wait: time.Millisecond, Sleep: time.Millisecond})
	}()
	for i := range 3 {
		require.NoError(t, ps.Publish("a", message.NewMessage("x", fmt.Append(nil, i))))
	}
	require.NoError(t, ps.Close())
	require.NoError(t, <-ended)
	require.Equal(t, []string{"0", "1", "1", "2"}, r.batches)
}
