package tests

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/buffstreams/watermill-buffstreams/engines/bridge"
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
