package receiver

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// What all groups have settled is remembered of none, so that a group takes memory only for what it is ahead.
func TestStream_RemembersOfAGroupWhatItIsAhead(t *testing.T) {
	var s stream
	settled := []store.Range{{First: 1, Last: 3}}
	s.noteGroup("g", store.Range{First: 1, Last: 3})
	s.noteGroup("ahead", store.Range{First: 4, Last: 6})
	require.Equal(t, map[string][]store.Range{"ahead": {{First: 4, Last: 6}}}, groupsOf(&s, settled))
	require.NotContains(t, s.groups, "g")
	require.Empty(t, groupsOf(&s, []store.Range{{First: 1, Last: 6}}))
	require.Empty(t, s.groups)
}

func groupsOf(s *stream, settled []store.Range) map[string][]store.Range {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groupsLocked(settled)
}
