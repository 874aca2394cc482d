package session

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A call asks the sender's memory for as many of its messages as its stream's window has room for, and for one at least.
func TestOutbound_AsksForWhatFitsItsWindow(t *testing.T) {
	var b Batch
	for range 5 {
		add(t, &b, pattern(38))
	}
	one := b.size(0)
	for bytes, fit := range map[int]int{1: 1, one: 1, 2*one - 1: 1, 2 * one: 2, 3*one + 1: 3, 9 * one: 5} {
		o := &Outbound{window: Window{Messages: 9, Bytes: bytes}}
		require.Equal(t, fit*one, o.fitting(&b, 0), "%d bytes", bytes)
	}
	o := &Outbound{window: Window{Messages: 3, Bytes: 1 << 20}}
	require.Equal(t, 3*one, o.fitting(&b, 1))
}
