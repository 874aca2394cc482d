package buffstreams

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// holdingStream holds so many messages. received is called when it is asked to wait for what its peer has.
type holdingStream struct {
	stream
	held     int
	received func() (left int)
}

func (h *holdingStream) Unsettled() int { return h.held }

func (h *holdingStream) AwaitReceived(context.Context) int { return h.received() }

// Close waits for what gets a part of another's messages while it waits for that one.
func TestPublisher_CloseWaitsForWhatGotAPartMeanwhile(t *testing.T) {
	a := &address{}
	at := func(s stream) *target {
		f := &routedStream{stream: s, name: "orders", slot: -1}
		f.addr.Store(a)
		return &target{fixed: f}
	}
	heir := &holdingStream{received: func() int { return 2 }}
	first := &holdingStream{held: 5}
	first.received = func() int { heir.held = 3; return 0 }
	s := &topicState{topic: "orders"}
	s.resolved.Store(&resolved{targets: []*target{at(first), at(heir)}})
	p := &Publisher{topics: map[string]*topicState{"orders": s}}
	var left *UndeliveredError
	require.ErrorAs(t, p.handOver(t.Context()), &left)
	require.Equal(t, 2, left.Count)
}
