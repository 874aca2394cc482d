package outbox

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestMove_GivesMessagesToATopic(t *testing.T) {
	o, err := Open(Config{Dir: t.TempDir()})
	require.NoError(t, err)
	defer func() { require.NoError(t, o.Close()) }()
	ctx := context.Background()
	from, to := store.Key{Destination: "h:1", Topic: "orders"}, store.TopicKey("orders", "orders", 0, -1)
	var want []string
	for i := range 10 {
		message := fmt.Append(nil, i)
		_, err := o.Append(ctx, from, message)
		require.NoError(t, err)
		if i >= 3 {
			want = append(want, string(message))
		}
	}
	require.NoError(t, o.Settle(from, 3))
	_, err = o.Append(ctx, to, []byte("first"))
	require.NoError(t, err)

	moved, err := o.Move(ctx, from, to)
	require.NoError(t, err)
	require.Equal(t, 7, moved)
	_, err = o.Read(from, 1, 100)
	require.ErrorIs(t, err, store.ErrUnknownStream)
	batch, err := o.Read(to, 1, 1<<20)
	require.NoError(t, err)
	var got []string
	for _, m := range batch.Messages {
		got = append(got, string(m))
	}
	require.Equal(t, append([]string{"first"}, want...), got)

	_, err = o.Move(ctx, from, to)
	require.ErrorIs(t, err, store.ErrUnknownStream)
	release, err := o.Acquire(ctx)
	require.NoError(t, err)
	defer release()
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = o.Move(canceled, to, from)
	require.ErrorIs(t, err, context.Canceled, "a publisher delivers it")
}

// TestMove_InSeveralBatches moves more than is copied at a time, to where it is, and to where it has no room.
func TestMove_InSeveralBatches(t *testing.T) {
	cfg := newMemDisk(1).config()
	cfg.SegmentBytes = 1 << 20
	o := open(t, cfg)
	var want [][]byte
	for n := range 7 {
		want = append(want, append(make([]byte, moveBytes/3), byte(n)))
		_, err := o.Append(bg, orders, want[n])
		require.NoError(t, err)
	}
	moved, err := o.Move(bg, orders, orders)
	require.NoError(t, err)
	require.Zero(t, moved, "it is there")
	require.EqualValues(t, 7, o.Streams()[0].Pending)
	moved, err = o.Move(bg, orders, events)
	require.NoError(t, err)
	require.Equal(t, 7, moved)
	require.Len(t, o.Streams(), 1)
	b, err := o.Read(events, 1, 100<<20)
	require.NoError(t, err)
	require.Len(t, b.Messages, 7)
	for n, m := range b.Messages {
		require.Equal(t, n, int(m[len(m)-1]))
	}

	_, err = o.Append(bg, orders, want[0], want[1])
	require.NoError(t, err)
	o.cfg.QuotaBytes = o.Stats().Bytes - 1 // one message has no room
	moved, err = o.Move(bg, events, orders)
	require.ErrorIs(t, err, store.ErrOutboxFull)
	require.Equal(t, 6, moved)
	streams := o.Streams()
	require.Equal(t, []uint64{1, 8}, []uint64{streams[0].Pending, streams[1].Pending})
}

// TestMove_ReportsDamage, and has moved what comes before it.
func TestMove_ReportsDamage(t *testing.T) {
	d := newMemDisk(1)
	cfg := d.config()
	cfg.CacheBytes = -1
	o := open(t, cfg)
	fill(t, o, orders, 1, 100, 1)
	name, offset := offsetOf(t, d, message(50))
	d.damage(t, name, offset)
	moved, err := o.Move(bg, orders, events)
	var damage *store.CorruptError
	require.ErrorAs(t, err, &damage)
	require.EqualValues(t, 50, damage.From)
	require.Equal(t, 49, moved)
	require.EqualValues(t, 51, o.Streams()[0].Pending)
}
