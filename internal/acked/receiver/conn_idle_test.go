//go:build unix

package receiver

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// TestConn_IdleKeepsASmallStack: one that says nothing goes on in a new goroutine, and the stack that frames were
// handled on is not kept.
func TestConn_IdleKeepsASmallStack(t *testing.T) {
	_, address := listenWith(t, Config{}, testkit.NewLog())
	const count = 300
	before := stackMemory()
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
		require.Eventually(t, func() bool { return rested() == count }, time.Minute, 50*time.Millisecond)
		if !testkit.RaceEnabled { // whose frames are larger
			require.Eventually(t, func() bool { return stackMemory()-before < count*5/2<<10 }, time.Minute, 50*time.Millisecond)
		}
	}
}

// rested is how many connections go on in a goroutine that has handled nothing yet.
func rested() int {
	all := make([]byte, 8<<20)
	return strings.Count(string(all[:runtime.Stack(all, true)]), "(*conn).readLoop.func1(")
}

func stackMemory() int {
	var m runtime.MemStats
	runtime.GC() // stacks of goroutines that ended are freed
	runtime.ReadMemStats(&m)
	return int(m.StackInuse)
}

// TestConn_EndsASilentPeer: it may rest, but not for ever.
func TestConn_EndsASilentPeer(t *testing.T) {
	const dead = 300 * time.Millisecond
	_, address := listenWith(t, Config{DeadAfter: dead}, testkit.NewLog())
	s := comeFrom(t, "127.0.0.1", address)
	began := time.Now()
	s.welcomed()
	require.Nil(t, s.next())
	require.GreaterOrEqual(t, time.Since(began), dead)
}
