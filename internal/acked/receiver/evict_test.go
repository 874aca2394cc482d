package receiver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// A publisher whose first stream needs room that others give up is remembered: it has no stream while they are evicted.
func TestEvictionSparesThePublisherThatNeedsTheRoom(t *testing.T) {
	e := listen(t, Config{MaxStreams: 1})
	open := func(id byte) *stream {
		publisher := make([]byte, 16)
		publisher[0] = id
		s, refused := e.open(&wire.Open{Publisher: publisher, Secret: make([]byte, 16), Epoch: 1, Stream: 1, Topic: "a", Base: 1}, "")
		require.Nil(t, refused)
		s.claims = 0 // as if it had been attached, and its publisher had gone
		return s
	}
	open(1)
	second := open(2)
	require.Same(t, second, open(2))
}
