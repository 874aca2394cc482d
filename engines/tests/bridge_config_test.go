package tests

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines/bridge"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

func TestBridge_SaysWhatIsMissing(t *testing.T) {
	for _, cfg := range []bridge.Config{
		{}, {From: "gochannel:", To: "gochannel:"}, {From: "gochannel:", Topics: []bridge.Topic{{From: "t"}}},
		{From: "gochannel:", To: "gochannel:", Topics: []bridge.Topic{{}}}, {From: "gochannel:", To: "nats://h", Topics: []bridge.Topic{{From: "t"}}},
		{From: "gochannel:?colour=1", To: "gochannel:", Topics: []bridge.Topic{{From: "t"}}},
	} {
		_, err := bridge.Open(t.Context(), cfg)
		assert.Error(t, err, cfg)
	}
	topic := []bridge.Topic{{From: "t"}}
	for _, test := range []struct {
		says string
		cfg  bridge.Config
	}{
		{"GoChannel", bridge.Config{From: "tcp://127.0.0.1:1", To: "gochannel:", Topics: topic}}, // which confirms what nothing takes
		{"GoChannel", bridge.Config{From: "gochannel:", To: "tcp://127.0.0.1:1", Topics: topic}},
		{"itself", bridge.Config{From: "nats://a,b?group=x", To: "nats://user@a,b/", Topics: topic}},
		{"one of its hosts", bridge.Config{From: "nats://a,?group=x", To: "tcp://127.0.0.1:1", Topics: topic}},
	} {
		_, err := bridge.Open(t.Context(), test.cfg)
		assert.ErrorContains(t, err, test.says, test.cfg)
	}
}

// A topic that is not there ends a bridge at its start, before it has taken anything: that of the destination, whether
// or not it can look back, and that of dead letters.
func TestBridge_EndsAtItsStartWhereATopicIsMissing(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		if !f.lasting {
			t.Skip("it keeps no topics")
		}
		e := f.open("")
		f.subscribe(e, "g") // which makes the topic
		require.NoError(t, e.Declare(t.Context(), f.topic))
		missing := f.open("create=false").Declare(t.Context(), "other-"+f.topic)
		require.ErrorIs(t, missing, driver.ErrNoTopic)
		require.NoError(t, f.open("create=false").Declare(t.Context(), f.topic))
		here := "unix://" + shortDir(t) + "/s"
		for name, cfg := range map[string]bridge.Config{
			"destination": {From: here, To: f.url("create=false"), LookBack: -1, Topics: []bridge.Topic{{From: "t", To: "other-" + f.topic}}},
			"dead letters": {
				From: f.url("create=false"), To: here, DeadLetterTopic: "dead-" + f.topic, Topics: []bridge.Topic{{From: f.topic, To: "t"}},
			},
		} {
			cfg.Options.Drivers = drivers()
			b, err := bridge.Open(t.Context(), cfg)
			require.NoError(t, err, name)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err = b.Run(ctx)
			cancel()
			require.ErrorIs(t, err, driver.ErrNoTopic, name)
			require.Zero(t, b.Stats().Received, name)
		}
	})
}
