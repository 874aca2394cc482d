package recovery

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ChildArg {
		if err := Child(os.Args[2:], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestRecovery_EverythingIsThereAfterTheCrash(t *testing.T) {
	for _, batch := range []int{1, 10} {
		r, err := Open(context.Background(), t.TempDir(), 2000, batch)
		require.NoError(t, err)
		require.Equal(t, 2000, r.Pending)
		require.Positive(t, r.FirstSeconds)
		require.Positive(t, r.ReadPerSecond)
	}
}

func TestRecovery_EverythingArrivesOncePeerAndPublisherAreBack(t *testing.T) {
	a, err := PeerAway(context.Background(), t.TempDir(), 1000, 4000)
	require.NoError(t, err)
	require.Equal(t, 4000, a.Delivered)
	require.Len(t, a.Marks, 3)
	require.Equal(t, []int{0, 800, 4000}, []int{a.Marks[0].Pending, a.Marks[1].Pending, a.Marks[2].Pending})
	require.Positive(t, a.FirstSeconds)
}

// loseOne takes a message out of what a crash left.
func loseOne(t *testing.T, j job) {
	_, err := j.crash(context.Background())
	require.NoError(t, err)
	o, err := outbox.Open(outbox.Config{Dir: j.Dir})
	require.NoError(t, err)
	require.NoError(t, o.Settle(o.Streams()[0].Key, 0, store.Range{First: 3, Last: 3}))
	require.NoError(t, o.Close())
}

func TestRecovery_LostMessageFailsTheRun(t *testing.T) {
	var account *measure.AccountError

	opened := job{Dir: filepath.Join(t.TempDir(), "outbox"), Writers: 10, Batch: 10, Marks: []int{1000}}
	loseOne(t, opened)
	_, err := opened.open(context.Background())
	require.ErrorAs(t, err, &account)
	require.Equal(t, measure.Account{Confirmed: 1000, Arrived: 999}, account.Account)
	opened.Task = open
	require.ErrorContains(t, opened.delegate(context.Background(), &Opened{}), "of 1000 confirmed messages 999 arrived")

	dir := t.TempDir()
	away := job{Dir: filepath.Join(dir, "outbox"), Topic: "unix://" + filepath.Join(dir, "s") + "#orders", Writers: 4, Batch: 10, Marks: []int{400}}
	loseOne(t, away)
	_, err = away.deliver(context.Background())
	require.ErrorAs(t, err, &account)
	require.Equal(t, measure.Account{Confirmed: 400, Arrived: 399}, account.Account)
}

func TestRecovery_ChildThatFailsSaysWhy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "not a directory")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(context.Background(), filepath.Join(file, "x"), 100, 1)
	require.ErrorContains(t, err, "not a directory")
}

func TestRecovery_LostMessageFailsTheRunOfAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	away := job{Dir: filepath.Join(dir, "outbox"), Topic: "unix://" + filepath.Join(dir, "s") + "#orders", Writers: 4, Batch: 10, Marks: []int{400}}
	loseOne(t, away)
	away.Task = deliver
	require.ErrorContains(t, away.delegate(context.Background(), &Away{}), "of 400 confirmed messages 399 arrived")
}
