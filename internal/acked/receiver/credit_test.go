package receiver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/flow"
)

func (s *stream) outstanding() flow.Amount {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.Outstanding()
}

// A Want and a grant are on their way at the same time. The sender has counted its credit without the grant, and asks
// again when it has seen that: an answer would be credit that it did not ask for.
func TestStream_IgnoresAWantThatAGrantHasCrossed(t *testing.T) {
	r := listen(t, Config{})
	join(r, "a")
	c := opens(t, r, openOf(1))
	s := c.handles[1]
	granted := s.outstanding()
	require.NotZero(t, granted.Messages)
	s.want(c, uint64(granted.Messages)-1, 1000, 10_000, 1)
	require.Equal(t, granted, s.outstanding())
	s.want(c, uint64(granted.Messages), 1000, 10_000, 1)
	require.Greater(t, s.outstanding().Messages, granted.Messages)
}

// The window grants a claim that its stream has given up meanwhile: the room goes back, and the stream, which has
// another claim, does not count it.
func TestStream_ReturnsAGrantForAnOlderClaim(t *testing.T) {
	r := listen(t, Config{})
	join(r, "a")
	s, _, refused := r.open(openOf(1), "")
	require.Nil(t, refused)
	window := s.topic.Window()
	all := r.cfg.window()
	require.Equal(t, all, window.Take(all))
	s.claim = &flow.Claim{}
	s.granted(&flow.Claim{}, all)
	require.Zero(t, s.outstanding())
	require.Equal(t, all, window.Take(all), "it is free again")
	window.Release(all)
}

// A stream that is away leaves its share of what streams may hold idle to those that are there.
func TestStream_SharesTheWindowWhileItIsAttached(t *testing.T) {
	r := listen(t, Config{})
	join(r, "a")
	window := r.Topic("a").Window()
	one := window.Idle()
	for range 3 {
		c, other := opens(t, r, openOf(1)), opens(t, r, openOf(2))
		require.Equal(t, flow.Amount{Messages: one.Messages / 2, Bytes: one.Bytes / 2}, window.Idle())
		c.terminate(nil)
		other.terminate(nil)
		require.Equal(t, one, window.Idle())
	}
}
