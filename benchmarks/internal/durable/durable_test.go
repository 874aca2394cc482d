package durable

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

func kinds() map[string]Kind {
	return map[string]Kind{"bare": Bare, "outbox": Outbox, "jetstream": JetStream(true), "jetstream, no sync": JetStream(false)}
}

func contest(t *testing.T, kind Kind, senders int) ([]measure.Result, error) {
	return measure.Run(context.Background(), measure.Plan{Rounds: 1, Turn: 50 * time.Millisecond}, measure.Contest{
		Name: "test", Senders: senders, MessageBytes: 110,
		Contestants: []measure.Contestant{{Name: "it", Turn: kind.Turn(t.TempDir())}},
	})
}

func TestDurable_EveryStoreGivesBackWhatItConfirmed(t *testing.T) {
	for name, kind := range kinds() {
		for _, senders := range []int{1, 16} {
			results, err := contest(t, kind, senders)
			require.NoError(t, err, "%s, %d senders", name, senders)
			require.Positive(t, results[0].Rate("it").Median, "%s, %d senders", name, senders)
		}
	}
}

// forgetful confirms every message, and drops some.
type forgetful struct {
	Store
	calls *atomic.Int64
}

func (f forgetful) Append(ctx context.Context, message []byte) error {
	if f.calls.Add(1) == 7 {
		return nil
	}
	return f.Store.Append(ctx, message)
}

func TestDurable_LostMessageFailsTheRun(t *testing.T) {
	for name, kind := range kinds() {
		var calls atomic.Int64
		lossy := Kind{Replay: kind.Replay, Open: func(dir string, senders int) (Store, error) {
			s, err := kind.Open(dir, senders)
			return forgetful{s, &calls}, err
		}}
		_, err := contest(t, lossy, 4)
		var account *measure.AccountError
		require.ErrorAs(t, err, &account, name)
		require.Equal(t, account.Account.Confirmed-1, account.Account.Arrived, name)
	}
}

func TestDurable_FailedAppendFailsTheRun(t *testing.T) {
	closed := Kind{Replay: Outbox.Replay, Open: func(dir string, senders int) (Store, error) {
		s, err := Outbox.Open(dir, senders)
		if err != nil {
			return nil, err
		}
		return s, s.Close()
	}}
	_, err := contest(t, closed, 4)
	require.Error(t, err)
}
