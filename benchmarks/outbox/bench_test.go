package main

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/recovery"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == recovery.ChildArg {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestOutboxBench_ShortRunYieldsEveryFigure(t *testing.T) {
	p := plan{rounds: 2, turn: 20 * time.Millisecond, pending: 2000, opened: []int{10}, away: []int{800, 1600}}
	r, err := bench(context.Background(), t.TempDir(), p)
	require.NoError(t, err)
	require.Len(t, r.goals(), 8)
	require.Contains(t, r.markdown(), "| 16 publishing | ")
	content, err := json.Marshal(r)
	require.NoError(t, err)
	var read struct {
		Throughput []throughput
		Goals      []measure.Goal
	}
	require.NoError(t, json.Unmarshal(content, &read))
	require.Equal(t, r.Throughput, read.Throughput)
	require.Equal(t, r.goals(), read.Goals)
	for _, c := range r.Throughput {
		for _, who := range []string{bare, ours, synced, unsynced} {
			require.Equal(t, 2, c.Rates[who].Rounds, who)
		}
	}
}

func TestOutboxBench_FlagsThatMakeNoSense(t *testing.T) {
	require.Error(t, run([]string{"--fast"}))
	require.ErrorContains(t, run([]string{"now"}), "unexpected argument")
	require.Error(t, run([]string{"--quick", "--dir", "/does/not/exist"}))
	require.ErrorContains(t, run([]string{recovery.ChildArg}), "job is missing")
}
