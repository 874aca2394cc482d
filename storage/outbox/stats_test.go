package outbox

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// Stats name destinations and their topics in the order of their names.
func TestStats_AreInOrder(t *testing.T) {
	o, err := Open(Config{Dir: t.TempDir()})
	require.NoError(t, err)
	defer func() { require.NoError(t, o.Close()) }()
	names := []string{"a", "b", "c", "d", "e", "f"}
	for i := range names {
		for _, d := range names {
			_, err = o.Append(context.Background(), store.Key{Destination: d, Topic: names[len(names)-1-i]}, []byte("x"))
			require.NoError(t, err)
		}
	}
	destinations := o.Stats().Destinations
	require.Len(t, destinations, len(names))
	for i, d := range destinations {
		require.Equal(t, names[i], d.Name)
		require.Len(t, d.Topics, len(names))
		for j, topic := range d.Topics {
			require.Equal(t, names[j], topic.Name)
		}
	}
}

// Stats say what is pending, for whom, and since when, also after a restart.
func TestStats_SayWhatIsPending(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), QuotaBytes: 1 << 20}
	o, err := Open(cfg)
	require.NoError(t, err)
	a, b := store.Key{Destination: "a:1", Topic: "orders"}, store.Key{Destination: "b:1", Topic: "orders"}
	before := time.Now()
	for range 3 {
		_, err = o.Append(context.Background(), a, []byte("one"), []byte("two"))
		require.NoError(t, err)
	}
	between := time.Now()
	_, err = o.Append(context.Background(), b, []byte("one"))
	require.NoError(t, err)
	s := o.Stats()
	require.EqualValues(t, 7, s.Pending)
	require.EqualValues(t, 1<<20, s.QuotaBytes)
	require.WithinRange(t, s.OldestUnsettled, before, between)
	require.Len(t, s.Destinations, 2)
	require.Equal(t, "a:1", s.Destinations[0].Name)
	require.EqualValues(t, 6, s.Destinations[0].Pending)
	require.Equal(t, s.Bytes, s.Destinations[0].Bytes+s.Destinations[1].Bytes)
	require.WithinRange(t, s.Destinations[1].OldestUnsettled, between, time.Now())

	require.NoError(t, o.Settle(a, 6))
	s = o.Stats()
	require.EqualValues(t, 1, s.Pending)
	require.True(t, s.Destinations[0].OldestUnsettled.IsZero())
	require.Equal(t, s.Destinations[1].OldestUnsettled, s.OldestUnsettled)

	require.NoError(t, o.Close())
	require.NotEmpty(t, o.Stats().Err)
	opened := time.Now()
	o, err = Open(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, o.Close()) }()
	s = o.Stats()
	require.Empty(t, s.Err)
	require.EqualValues(t, 1, s.Pending)
	require.WithinRange(t, s.OldestUnsettled, opened, time.Now(), "it is as old as the process at least")
}

// However many appends wait, the marks of a stream are bounded, and the age of the oldest is right.
func TestStats_MarksAreBounded(t *testing.T) {
	s := &stream{next: 1}
	at := func(seq uint64) time.Time { return time.Unix(int64(seq), 0) }
	for seq := uint64(1); seq <= 10_000; seq++ {
		s.noteAge(seq, at(seq))
		s.next++
	}
	require.LessOrEqual(t, len(s.marks), maxMarks)
	require.Equal(t, at(1), s.oldest(time.Time{}))
	s.settled.add(store.Range{First: 1, Last: 5000}, nil)
	s.forgetAges()
	require.WithinRange(t, s.oldest(time.Time{}), at(4900), at(5001))
	s.settled.add(store.Range{First: 1, Last: 10_000}, nil)
	s.forgetAges()
	require.Empty(t, s.marks)
	for seq := uint64(10_001); seq <= 10_002; seq++ {
		s.noteAge(seq, at(seq))
		s.next++
	}
	s.settled.add(store.Range{First: 1, Last: 10_001}, nil)
	require.Equal(t, at(10_002), s.oldest(time.Time{}), "as exact as at first")
}

// TestStats_SumUp have the oldest of all, whichever name it has, and sums of all topics.
func TestStats_SumUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := open(t, newMemDisk(1).config())
		var at []time.Time
		keys := []store.Key{{Destination: "b", Topic: "2"}, {Destination: "b", Topic: "1"}, {Destination: "a", Topic: "2"}, {Destination: "a", Topic: "3"}}
		for i, k := range keys {
			time.Sleep(time.Second)
			at = append(at, time.Now())
			fill(t, o, k, 1, uint64(i)+1, 1)
		}
		oldest := func() (all []time.Time) {
			s := o.Stats()
			all = append(all, s.OldestUnsettled)
			for _, d := range s.Destinations {
				all = append(all, d.OldestUnsettled)
			}
			return all
		}
		require.Equal(t, []time.Time{at[0], at[2], at[0]}, oldest())
		s := o.Stats()
		require.Equal(t, []uint64{10, 7, 3}, []uint64{s.Pending, s.Destinations[0].Pending, s.Destinations[1].Pending})
		require.Equal(t, s.Bytes, s.Destinations[0].Bytes+s.Destinations[1].Bytes)
		require.Equal(t, s.Destinations[0].Bytes, s.Destinations[0].Topics[0].Bytes+s.Destinations[0].Topics[1].Bytes)
		require.EqualValues(t, 7*(10+MessageOverhead), s.Destinations[0].Bytes)
		require.NoError(t, o.Settle(keys[0], 1))
		require.Equal(t, []time.Time{at[1], at[2], at[1]}, oldest())
		require.NoError(t, o.Settle(keys[1], 2))
		require.Equal(t, []time.Time{at[2], at[2], {}}, oldest())

		require.False(t, o.Stats().Delivering)
		release, err := o.Acquire(bg)
		require.NoError(t, err)
		require.True(t, o.Stats().Delivering)
		release()
		require.False(t, o.Stats().Delivering)
		require.NoError(t, o.Close())
	})
}
