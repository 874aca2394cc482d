package session

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

func TestPeerError_SpeaksToPeople(t *testing.T) {
	for code, name := range wire.Code_name {
		text := NewPeerError(wire.Code(code), "").Error()
		require.NotContains(t, text, "CODE_")
		if code != 0 {
			require.NotRegexp(t, "[0-9]", text, "%s has no words", name)
		}
	}
	gone := NewPeerError(wire.Code_CODE_TOPIC_GONE, "its last\nsubscription ended")
	require.EqualError(t, gone, `the peer refused: topic is gone: "its last\nsubscription ended"`)
	require.EqualError(t, NewPeerError(99, ""), "the peer refused: code 99")
}

func TestPeerError_MatchesTheSentinelOfItsCodeAlone(t *testing.T) {
	sentinels := []error{
		ErrUnauthenticated, ErrForbidden, ErrFenced, ErrTopicGone, ErrLimit, ErrUndecodable, ErrHandlingFailed,
	}
	matched := map[error]int{}
	for code := range wire.Code_name {
		n := 0
		for _, sentinel := range sentinels {
			if errors.Is(NewPeerError(wire.Code(code), ""), sentinel) {
				matched[sentinel]++
				n++
			}
		}
		require.LessOrEqual(t, n, 1)
		require.False(t, NewPeerError(wire.Code(code), "").Is(nil))
	}
	for _, sentinel := range sentinels {
		require.Equal(t, 1, matched[sentinel], "%v", sentinel)
	}
}
