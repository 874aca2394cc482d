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
