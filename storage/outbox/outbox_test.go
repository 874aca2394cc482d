package outbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("OUTBOX_TEST_LOCK"); dir != "" {
		os.Exit(lockChild(dir))
	}
	testenv.Main(m)
}

var (
	bg     = context.Background()
	orders = store.Key{Destination: "10.0.0.1:5031", Topic: "orders"}
	events = store.Key{Destination: "10.0.0.2:5031", Topic: "events"}
)

func open(t testing.TB, cfg Config) *Outbox {
	t.Helper()
	o, err := Open(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = o.Close() })
	return o
}

// streamID returns the number of stream k, or 0 if there is none.
func streamID(o *Outbox, k store.Key) uint64 {
	for _, s := range o.Streams() {
		if s.Key == k {
			return s.ID
		}
	}
	return 0
}

func message(n uint64) []byte { return fmt.Appendf(nil, "message %d", n) }

// fill appends messages first to last, batch at a time, and checks their numbers.
func fill(t testing.TB, o *Outbox, k store.Key, first, last, batch uint64) {
	t.Helper()
	for seq := first; seq <= last; {
		var messages [][]byte
		for n := seq; n < seq+batch && n <= last; n++ {
			messages = append(messages, message(n))
		}
		got, err := o.Append(bg, k, messages...)
		require.NoError(t, err)
		require.Equal(t, seq, got)
		seq += uint64(len(messages))
	}
}

// readAll reads from from on until nothing is left, and returns the sequences.
func readAll(t testing.TB, o *Outbox, k store.Key, from uint64, maxBytes int) (seqs []uint64) {
	t.Helper()
	for {
		b, err := o.Read(k, from, maxBytes)
		require.NoError(t, err)
		if len(b.Messages) == 0 {
			return seqs
		}
		require.GreaterOrEqual(t, b.First, from)
		for i, m := range b.Messages {
			require.Equal(t, string(message(b.First+uint64(i))), string(m))
			seqs = append(seqs, b.First+uint64(i))
		}
		from = b.Next()
	}
}

func sequence(first, last uint64) (seqs []uint64) {
	for n := first; n <= last; n++ {
		seqs = append(seqs, n)
	}
	return seqs
}

func TestRead_ReturnsMessagesInOrder(t *testing.T) {
	for _, cache := range []int{0, -1, 3000} {
		for _, maxBytes := range []int{1, 100, 1 << 20} {
			t.Run(fmt.Sprintf("cache %d, %d bytes", cache, maxBytes), func(t *testing.T) {
				cfg := newMemDisk(1).config()
				cfg.CacheBytes = cache
				o := open(t, cfg)
				for n := uint64(1); n <= 600; n += 3 {
					fill(t, o, orders, n, n+2, 3)
					fill(t, o, events, n, n+2, 1)
				}
				require.Equal(t, sequence(1, 600), readAll(t, o, orders, 1, maxBytes))
				require.Equal(t, sequence(250, 600), readAll(t, o, events, 250, maxBytes))
				require.NoError(t, o.Close())
				o = open(t, cfg)
				require.Equal(t, sequence(1, 600), readAll(t, o, orders, 0, maxBytes))
				fill(t, o, orders, 601, 610, 5)
				require.Equal(t, sequence(400, 610), readAll(t, o, orders, 400, maxBytes))
				require.Equal(t, sequence(1, 600), readAll(t, o, events, 1, maxBytes))
			})
		}
	}
}

func TestOpen_KeepsTheIdentityAndRaisesTheEpoch(t *testing.T) {
	cfg := Config{Dir: filepath.Join(t.TempDir(), "outbox")}
	o := open(t, cfg)
	id, secret := o.ID(), o.Secret()
	assert.NotEqual(t, id, secret)
	assert.NotZero(t, id)
	assert.EqualValues(t, 1, o.Epoch())
	fill(t, o, orders, 1, 5, 5)
	fill(t, o, events, 1, 5, 5)
	ids := [2]uint64{streamID(o, orders), streamID(o, events)}
	require.NoError(t, o.Close())
	info, err := os.Stat(cfg.Dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	for epoch := uint64(2); epoch < 5; epoch++ {
		o = open(t, cfg)
		assert.Equal(t, id, o.ID())
		assert.Equal(t, secret, o.Secret())
		assert.Equal(t, epoch, o.Epoch())
		assert.Equal(t, ids, [2]uint64{streamID(o, orders), streamID(o, events)})
		require.Equal(t, sequence(1, 5), readAll(t, o, orders, 1, 100))
		require.NoError(t, o.Close())
	}
	assert.NotEqual(t, id, open(t, newMemDisk(1).config()).ID())
}

func TestSettle_HidesMessagesAndFreesNoSequence(t *testing.T) {
	cfg := newMemDisk(1).config()
	o := open(t, cfg)
	fill(t, o, orders, 1, 1000, 10)
	require.NoError(t, o.Settle(orders, 100,
		store.Range{First: 200, Last: 299}, store.Range{First: 150, Last: 150}, store.Range{First: 102, Last: 103},
		store.Range{First: 901, Last: 5000}))
	want := slices.Concat([]uint64{101}, sequence(104, 149), sequence(151, 199), sequence(300, 900))
	require.Equal(t, want, readAll(t, o, orders, 1, 500))
	s := o.Streams()[0]
	assert.Equal(t, store.Stream{Key: orders, ID: 1, First: 101, Next: 1001, Sent: 901, Pending: uint64(len(want)), Bytes: s.Bytes, Openings: s.Openings}, s)
	require.NoError(t, o.Close())

	o = open(t, cfg)
	require.Equal(t, want, readAll(t, o, orders, 1, 500))
	require.NoError(t, o.Settle(orders, 1000))
	assert.Empty(t, readAll(t, o, orders, 1, 500))
	assert.Zero(t, o.Streams()[0].Bytes)
	require.NoError(t, o.Drain(bg))
	for range 3 {
		require.NoError(t, o.Close())
		o = open(t, cfg)
		require.Empty(t, readAll(t, o, orders, 1, 500))
	}
	fill(t, o, orders, 1001, 1010, 1)
	require.Equal(t, sequence(1001, 1010), readAll(t, o, orders, 0, 500))
}

func TestForget_RemovesAStreamForGood(t *testing.T) {
	cfg := newMemDisk(1).config()
	o := open(t, cfg)
	fill(t, o, orders, 1, 10, 5)
	fill(t, o, events, 1, 10, 5)
	require.ErrorIs(t, o.Forget(bg, orders), store.ErrPending)
	require.NoError(t, o.Settle(orders, 10))
	require.NoError(t, o.Forget(bg, orders))
	require.ErrorIs(t, o.Forget(bg, orders), store.ErrUnknownStream)
	require.ErrorIs(t, o.Settle(orders, 1), store.ErrUnknownStream)
	_, err := o.Read(orders, 1, 1)
	require.ErrorIs(t, err, store.ErrUnknownStream)
	_, err = o.Readable(orders, 1)
	require.ErrorIs(t, err, store.ErrUnknownStream)
	for range 2 {
		assert.Zero(t, streamID(o, orders))
		assert.Len(t, o.Streams(), 1)
		require.NoError(t, o.Close())
		o = open(t, cfg)
	}
	fill(t, o, orders, 1, 3, 1)
	assert.EqualValues(t, 3, streamID(o, orders))
	require.NoError(t, o.Close())
	o = open(t, cfg)
	assert.EqualValues(t, 3, streamID(o, orders))

	require.NoError(t, o.Settle(orders, 3))
	require.NoError(t, o.Forget(bg, orders))
	for range 3 { // until only the table of streams can know
		require.NoError(t, o.Close())
		o = open(t, cfg)
	}
	fill(t, o, orders, 1, 1, 1)
	assert.EqualValues(t, 4, streamID(o, orders), "also the highest")
}

func TestQuota_CountsEachDestination(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.QuotaBytes = 10 * (100 + 2 + MessageOverhead)
	o := open(t, cfg)
	m := make([]byte, 100)
	other := store.Key{Destination: orders.Destination, Topic: "other"}
	for range 5 {
		_, err := o.Append(bg, orders, m)
		require.NoError(t, err)
	}
	_, err := o.Append(bg, other, m, m, m, m, m, m)
	require.ErrorIs(t, err, store.ErrOutboxFull)
	var full *store.FullError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, orders.Destination, full.Destination)
	assert.Zero(t, streamID(o, other), "nothing was written")
	_, err = o.Append(bg, other, m, m, m, m)
	require.NoError(t, err)
	_, err = o.Append(bg, events, m, m)
	require.NoError(t, err, "another destination")
	_, err = o.Append(bg, orders, m, m)
	require.ErrorIs(t, err, store.ErrOutboxFull)
	require.NoError(t, o.Close())

	o = open(t, cfg)
	_, err = o.Append(bg, orders, m, m)
	require.ErrorIs(t, err, store.ErrOutboxFull, "the account survives")
	require.NoError(t, o.Settle(orders, 1))
	first, err := o.Append(bg, orders, m, m)
	require.NoError(t, err)
	assert.EqualValues(t, 6, first, "a refused append takes no sequence")
}

func TestAppend_Refuses(t *testing.T) {
	d := newMemDisk(1)
	o := open(t, d.config())
	var size *store.SizeError
	_, err := o.Append(bg, orders, make([]byte, MaxAppendBytes))
	require.ErrorAs(t, err, &size)
	_, err = o.Append(bg, store.Key{Topic: string(make([]byte, MaxKeyBytes+1))}, nil)
	require.ErrorAs(t, err, &size)
	_, err = o.Append(bg, store.Key{Destination: string(make([]byte, MaxKeyBytes+1))}, nil)
	require.ErrorAs(t, err, &size)
	first, err := o.Append(bg, orders)
	require.NoError(t, err)
	assert.Zero(t, first)
	cancelled, cancel := context.WithCancel(bg)
	cancel()
	_, err = o.Append(cancelled, orders, nil)
	require.ErrorIs(t, err, context.Canceled)
	assert.Empty(t, o.Streams())

	for _, cfg := range []Config{{}, {Dir: "x", QuotaBytes: -1}, {Dir: "x", SegmentBytes: 1}, {Dir: "x", CacheBytes: -2}} {
		_, err := Open(cfg)
		require.ErrorContains(t, err, "Config.")
	}
}

func TestAppend_EmptyAndLargeMessages(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	large := make([]byte, 300<<10)
	for range 3 {
		_, err := o.Append(bg, orders, nil, large, []byte{})
		require.NoError(t, err)
	}
	b, err := o.Read(orders, 1, 10)
	require.NoError(t, err)
	assert.Len(t, b.Messages, 1)
	b, err = o.Read(orders, 2, 10)
	require.NoError(t, err)
	assert.Equal(t, [][]byte{large}, b.Messages)
	b, err = o.Read(orders, 1, 1<<20)
	require.NoError(t, err)
	assert.GreaterOrEqual(t, len(b.Messages), 3)
}

// TestCache_HasNoGapBehindALargeGroup appends a group that the cache has no room for between two that it has room for.
func TestCache_HasNoGapBehindALargeGroup(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.CacheBytes = 3000
	o := open(t, cfg)
	fill(t, o, orders, 1, 3, 1)
	large := make([]byte, 4000)
	_, err := o.Append(bg, orders, large)
	require.NoError(t, err)
	fill(t, o, orders, 5, 6, 1)
	o.mu.Lock()
	recent := o.index.streams[orders].recent
	o.mu.Unlock()
	for i, sec := range recent {
		require.EqualValues(t, 7, sec.last()+uint64(len(recent)-i), "section %d of %d", i, len(recent))
	}
	b, err := o.Read(orders, 4, 1)
	require.NoError(t, err)
	require.Equal(t, [][]byte{large}, b.Messages)
	require.Equal(t, sequence(5, 6), readAll(t, o, orders, 5, 100))
}
