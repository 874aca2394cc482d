package policy

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAges_OldestUnsettledMessage(t *testing.T) {
	var a Ages
	now := time.Unix(1000, 0)
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	require.Zero(t, a.Note(1, 1, at(0)), "there is none")
	require.Zero(t, a.Note(1, 11, at(1)), "it has just come")
	require.Equal(t, 2*time.Second, a.Note(1, 21, at(3)))
	require.Equal(t, 1*time.Second, a.Note(11, 21, at(4)), "those of second 3 are the oldest now")
	require.Zero(t, a.Note(21, 21, at(5)))
	require.Zero(t, a.Note(21, 31, at(9)))
}

// TestAges_SlowQueueThatMoves: the head advances all the time, and each message waits for long all the same.
func TestAges_SlowQueueThatMoves(t *testing.T) {
	var a Ages
	now := time.Unix(1000, 0)
	var age time.Duration
	for i := range uint64(1000) { // ten enqueued a tick, one settled
		age = a.Note(1+i, 1+10*(i+1), now.Add(time.Duration(i)*100*time.Millisecond))
	}
	require.InDelta(t, 90*time.Second, age, float64(9*time.Second))
	require.LessOrEqual(t, len(a.samples), maxSamples)
	for i := range uint64(900) { // nothing more comes, and the rest is settled ten times as fast
		now, head := now.Add(time.Duration(1000+i)*100*time.Millisecond), 1000+10*i
		came := now.Add(-time.Duration(1000+i-head/10) * 100 * time.Millisecond)
		require.InDelta(t, now.Sub(came), a.Note(head, 10001, now), float64(9*time.Second), "%d", i)
	}
}

// TestAges_LongAndShortWaits: a stream that has held much for long is looked at as closely as any other when that is settled, and what
// is between two samples makes no message older than it is.
func TestAges_LongAndShortWaits(t *testing.T) {
	var a Ages
	now := time.Unix(1000, 0)
	for i := range uint64(10_000) {
		a.Note(1, i+2, now)
		now = now.Add(time.Second)
	}
	gap := 2 * 10_000 * time.Second / maxSamples
	for head := uint64(2); head < 10_000; head += 1000 {
		most := time.Duration(10_001-head) * time.Second
		age := a.Note(head, 10_001, now)
		require.LessOrEqual(t, age, most)
		require.Greater(t, age, most-2*gap)
	}
	require.Zero(t, a.Note(10_001, 10_001, now))
	for i := range uint64(3) {
		a.Note(10_001, 10_011+10*i, now.Add(time.Duration(i)*time.Second))
	}
	require.Equal(t, 2*time.Second, a.Note(10_011, 10_031, now.Add(3*time.Second)), "those of the second of them are the oldest")
}

func TestSlow_FarBeyondItsSiblings(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		ages []time.Duration
		slow []bool
	}{
		{[]time.Duration{10 * ms, 2000 * ms, 20 * ms}, []bool{false, true, false}},
		{[]time.Duration{1 * ms, 200 * ms}, []bool{false, false}},                              // not long at all
		{[]time.Duration{1000 * ms, 2000 * ms}, []bool{false, false}},                          // not far
		{[]time.Duration{2000 * ms}, []bool{false}},                                            // no sibling
		{[]time.Duration{9000 * ms, 9000 * ms, 10 * ms}, []bool{false, false, false}},          // more than half
		{[]time.Duration{0, 90000 * ms, 9000 * ms, 10 * ms}, []bool{false, true, true, false}}, // half
		{[]time.Duration{9000 * ms, 90000 * ms, 10 * ms}, []bool{false, true, false}},          // less than half
		{[]time.Duration{250 * ms, 0}, []bool{true, false}},                                    // as little as that
		{nil, []bool{}},
	} {
		require.Equal(t, c.slow, Slow(c.ages), "%v", c.ages)
	}
}

func TestState_HasAName(t *testing.T) {
	for s, want := range map[State]string{Idle: "idle", Ready: "ready", Gone: "gone", -1: "unknown", 99: "unknown"} {
		require.Equal(t, want, s.String())
	}
}
