package buffstreams

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/policy"
)

// TestAddress_IsFreshUntilItsFirstAttemptEnds, however that ends.
func TestAddress_IsFreshUntilItsFirstAttemptEnds(t *testing.T) {
	m, s, _ := newPair(t, AckedConfig{})
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	for _, a := range []*address{m.addressOf(s), using(t, p, "127.0.0.1:1")} {
		require.True(t, a.fresh(a.made))
		require.False(t, a.fresh(a.made.Add(freshFor)), "it takes too long")
		a.sender.Dial()
		require.Eventually(t, func() bool { return !a.fresh(a.made) }, 30*time.Second, time.Millisecond)
		require.Contains(t, []policy.State{policy.Ready, policy.Failed}, a.state())
	}
}

// TestManager_ForgetsAnAddressThatNothingUses, after a while in which publishers that come one after another share it.
func TestManager_ForgetsAnAddressThatNothingUses(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	use := func() *address {
		a, err := m.use(tcp("127.0.0.1:1"))
		require.NoError(t, err)
		return a
	}
	there := func() int { return len(m.senders()) }
	first := use()
	m.tick(time.Now().Add(time.Hour))
	require.Equal(t, 1, there(), "it is in use")
	m.release(first)
	require.Same(t, first, use())
	before := time.Now()
	m.release(first)
	m.tick(before.Add(lingerFor - 1))
	require.Equal(t, 1, there(), "it lingers")
	m.tick(time.Now().Add(lingerFor))
	require.Zero(t, there())
	second := use()
	require.NotSame(t, first, second)
	m.retire(first, time.Now()) // as two ticks may have found it
	require.Equal(t, 1, there())
	require.Nil(t, m.addressOf(first.sender))
}

// TestManager_RemembersNoCloseOfAListener that has ended.
func TestManager_RemembersNoCloseOfAListener(t *testing.T) {
	m, _, _ := newPair(t, AckedConfig{})
	require.NoError(t, m.CloseListener(t.Context(), anyPort.Address))
	require.Empty(t, m.closing)
	require.Empty(t, m.listeners)
}

// TestAddress_IsLostOnce, by its first attempt too: those whose messages wait for it are told to look elsewhere.
func TestAddress_IsLostOnce(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	a := using(t, p, "127.0.0.1:1")
	require.False(t, a.changed(), "nothing is known of it")
	a.sender.Dial()
	require.Eventually(t, func() bool { return a.state() == policy.Failed && a.tried.Load() }, 30*time.Second, time.Millisecond)
	require.False(t, a.changed(), "as before")
	a.tried.Store(false)
	require.True(t, a.changed())
	require.False(t, a.changed())
	a.ready.Store(time.Now().UnixNano())
	require.True(t, a.changed(), "it was ready")
	require.False(t, a.changed())
}
