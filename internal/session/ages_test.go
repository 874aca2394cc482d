package session

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// However long messages wait, their marks are bounded, and an age is right to a hundredth of what they span.
func TestAges_AreBounded(t *testing.T) {
	var a ages
	at := func(seq uint64) time.Time { return time.Unix(int64(seq), 0) }
	for seq := uint64(1); seq <= 10_000; seq++ {
		a.note(seq, at(seq).UnixNano())
	}
	require.Less(t, len(a.marks), maxMarks)
	require.Equal(t, at(1), a.of(1))
	require.WithinRange(t, a.of(5000), at(4900), at(5000))
	require.WithinRange(t, a.of(10_000), at(9800), at(10_000))
	a.drop(5000)
	require.WithinRange(t, a.of(5000), at(4900), at(5000))
	require.Less(t, len(a.marks), maxMarks/2+10)
	a.clear()
	require.True(t, a.of(10_000).IsZero())
}
