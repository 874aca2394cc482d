package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/drive"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == drive.ChildArg {
		main()
		return
	}
	grown = []int{1, 20, 100}
	os.Exit(m.Run())
}

func TestCompare_ShortRunYieldsEveryGoal(t *testing.T) {
	if testing.Short() {
		t.Skip("every contestant takes a turn")
	}
	p := plan{Rounds: 1, Turn: 10 * time.Millisecond, RareRounds: 1, RareTurn: 10 * time.Millisecond}
	r, err := bench(context.Background(), t.TempDir(), p, "")
	require.NoError(t, err)
	ids := map[string]int{}
	for _, g := range r.reach {
		ids[g.ID]++
		require.Positive(t, g.Spread.Rounds, g.What)
	}
	require.Equal(t, map[string]int{"P1": 4, "P2": 6, "P3": 11, "P4": 2, "P5": 4, "P6": 6, "P7": 2, "P8": 3, "P9": 8, "P10": 1, "P11": 4, "P12": 3, "P13": 1, "P14": 2, "P15": 1}, ids)

	dir := t.TempDir()
	require.NoError(t, r.write(dir))
	page, err := os.ReadFile(filepath.Join(dir, "benchmarks.md"))
	require.NoError(t, err)
	for _, c := range []string{"## Goals", "Where we lose", "GOGC=100", "| NATS core | none: ", "## Memory (P9)"} {
		require.Contains(t, string(page), c)
	}
	content, err := os.ReadFile(filepath.Join(dir, "benchmarks.json"))
	require.NoError(t, err)
	var read struct{ Goals []goal }
	require.NoError(t, json.Unmarshal(content, &read))
	require.Equal(t, r.reach, read.Goals)
	chart, err := os.ReadFile(filepath.Join(dir, "benchmarks.svg"))
	require.NoError(t, err)
	require.Contains(t, string(chart), "<svg")
}

func TestCompare_FlagsThatMakeNoSense(t *testing.T) {
	require.Error(t, run([]string{"--fast"}))
	require.ErrorContains(t, run([]string{"now"}), "unexpected argument")
	require.ErrorContains(t, run([]string{"--only", "async", "--out", "docs"}), "needs all contests")
	require.ErrorContains(t, run([]string{"--only", "nothing"}), "no contest")
	require.ErrorContains(t, run([]string{drive.ChildArg}), "job is missing")
}

func TestRatio_IsToTheBestOfEachRound(t *testing.T) {
	r := newResult(contest{contestants: []contestant{{name: "we"}, {name: "a"}, {name: "b"}}})
	for i, v := range [][3]float64{{10, 5, 1}, {20, 2, 10}, {30, 3, 3}} {
		for j, who := range r.Contestants {
			r.add(who, drive.Figures{drive.Rate: v[j]})
		}
		require.Equal(t, i+1, r.of("we", drive.Rate).Rounds)
	}
	got, err := r.ratio(drive.Rate, "we", "a", "b")
	require.NoError(t, err)
	require.Equal(t, 2.0, got.Median)
	require.Equal(t, 10.0, got.Max)
}
