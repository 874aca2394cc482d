//go:build unix

package pool

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAQuietConnectionKeepsASmallStack: the stack that frames were handled on is not kept for one that says nothing.
func TestAQuietConnectionKeepsASmallStack(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's frames are larger")
	}
	_, address := endpointWith(t, AckedConfig{}, newPlainLog())
	stacks := func() int {
		var m runtime.MemStats
		runtime.GC() // stacks of goroutines that ended are freed
		runtime.ReadMemStats(&m)
		return int(m.StackInuse)
	}
	const count = 300
	before := stacks()
	peers := make([]stranger, count)
	for i := range peers {
		peers[i] = comeFrom(t, "127.0.0.1", address)
		peers[i].welcomed()
	}
	for range 2 {
		for _, s := range peers {
			_, err := s.conn.Write(ping(t))
			require.NoError(t, err)
			require.EqualValues(t, 7, s.next().GetPong().GetId())
		}
		require.Eventually(t, func() bool { return stacks()-before < count*5/2<<10 }, time.Minute, 50*time.Millisecond)
	}
}

// TestAPeerThatSaysNothingIsEnded: it may rest, but not for ever.
func TestAPeerThatSaysNothingIsEnded(t *testing.T) {
	const dead = 300 * time.Millisecond
	_, address := endpointWith(t, AckedConfig{PingAfter: dead / 2, DeadAfter: dead}, newPlainLog())
	s := comeFrom(t, "127.0.0.1", address)
	began := time.Now()
	s.welcomed()
	require.Nil(t, s.next())
	require.GreaterOrEqual(t, time.Since(began), dead)
}
