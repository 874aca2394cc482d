package outbox

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestPlaces_SurviveAReopen(t *testing.T) {
	dir, ctx := t.TempDir(), context.Background()
	o, err := Open(Config{Dir: dir})
	require.NoError(t, err)
	a, b := store.TopicKey("orders", "orders", 0, 3), store.TopicKey("orders", "orders", 0, 4)
	require.ErrorIs(t, o.SetPlace(ctx, a, store.Place{Address: "h:1", Tenure: 1}), store.ErrUnknownStream)
	for _, k := range []store.Key{a, b} {
		_, err = o.Append(ctx, k, []byte("x"))
		require.NoError(t, err)
	}
	require.Zero(t, o.Place(a))
	require.NoError(t, o.SetPlace(ctx, a, store.Place{Address: "h:1", Tenure: 1}))
	require.NoError(t, o.SetPlace(ctx, b, store.Place{Address: "h:2", Tenure: 1}))
	require.NoError(t, o.SetPlace(ctx, a, store.Place{Address: "h:3", Tenure: 2}))
	require.NoError(t, o.Settle(b, 1))
	require.NoError(t, o.Forget(ctx, b))
	require.NoError(t, o.Close())

	o, err = Open(Config{Dir: dir})
	require.NoError(t, err)
	require.Equal(t, store.Place{Address: "h:3", Tenure: 2}, o.Place(a))
	_, err = o.Append(ctx, b, []byte("y"))
	require.NoError(t, err)
	require.Zero(t, o.Place(b), "it is another stream")
	require.NoError(t, o.Close())
	require.ErrorIs(t, o.SetPlace(ctx, a, store.Place{}), store.ErrClosed)
}

func TestPlaces_QuotaIsPerTopic(t *testing.T) {
	o, err := Open(Config{Dir: t.TempDir(), QuotaBytes: 4096})
	require.NoError(t, err)
	defer func() { require.NoError(t, o.Close()) }()
	ctx, half := context.Background(), make([]byte, 2500)
	_, err = o.Append(ctx, store.TopicKey("orders", "orders", 0, 1), half)
	require.NoError(t, err)
	var full *store.FullError
	_, err = o.Append(ctx, store.TopicKey("orders", "orders", 0, 2), half)
	require.ErrorAs(t, err, &full)
	require.Equal(t, "topic:orders", full.Destination)
	_, err = o.Append(ctx, store.TopicKey("others", "others", 0, 2), half)
	require.NoError(t, err)
}
