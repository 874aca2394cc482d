package measure

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSpread(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		want   Spread
	}{
		"none": {nil, Spread{}},
		"one":  {[]float64{3}, Spread{Median: 3, Min: 3, Max: 3, Rounds: 1}},
		"odd":  {[]float64{9, 1, 2}, Spread{Median: 2, Min: 1, Max: 9, Rounds: 3}},
		"even": {[]float64{4, 1, 2, 9}, Spread{Median: 3, Min: 1, Max: 9, Rounds: 4}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, SpreadOf(c.values)) })
	}
	values := []float64{2, 1}
	SpreadOf(values)
	require.Equal(t, []float64{2, 1}, values, "in the order of the rounds")
}

func TestRatio_PairsRounds(t *testing.T) {
	ratios, err := Ratios([]float64{10, 100, 6}, []float64{5, 200, 2})
	require.NoError(t, err)
	require.Equal(t, []float64{2, 0.5, 3}, ratios)
	_, err = Ratios([]float64{1}, []float64{1, 2})
	require.Error(t, err)
	_, err = Ratios([]float64{1, 1}, []float64{1, 0})
	require.Error(t, err)
}

func TestRatio_IsOfRoundsNotOfMedians(t *testing.T) {
	r := Result{Rates: map[string][]float64{"a": {10, 40, 30}, "b": {10, 20, 60}}}
	ratio, err := r.Ratio("a", "b")
	require.NoError(t, err)
	require.Equal(t, Spread{Median: 1, Min: 0.5, Max: 2, Rounds: 3}, ratio)
	require.Equal(t, 30.0, r.Rate("a").Median)
	_, err = r.Ratio("a", "nobody")
	require.Error(t, err)
}

// deliver lets two senders send three messages each, and hands them on as change says.
func deliver(change func([][]byte) [][]byte) Account {
	l := NewLedger(2, 110)
	var messages [][]byte
	for range 3 {
		for s := range 2 {
			messages = append(messages, l.Message(nil, s))
			l.Confirm(s, 1)
		}
	}
	for _, m := range change(messages) {
		l.Arrive(m)
	}
	return l.Account()
}

func TestAccount(t *testing.T) {
	for name, c := range map[string]struct {
		change func([][]byte) [][]byte
		want   Account
	}{
		"all":           {func(m [][]byte) [][]byte { return m }, Account{Confirmed: 6, Arrived: 6}},
		"first lost":    {func(m [][]byte) [][]byte { return m[1:] }, Account{Confirmed: 6, Arrived: 5}},
		"last lost":     {func(m [][]byte) [][]byte { return m[:5] }, Account{Confirmed: 6, Arrived: 5}},
		"all lost":      {func(m [][]byte) [][]byte { return nil }, Account{Confirmed: 6}},
		"one repeated":  {func(m [][]byte) [][]byte { return append(m, m[5]) }, Account{Confirmed: 6, Arrived: 6, Repeated: 1}},
		"out of order":  {func(m [][]byte) [][]byte { m[0], m[2] = m[2], m[0]; return m }, Account{Confirmed: 6, Arrived: 5, Repeated: 1}},
		"a byte lost":   {func(m [][]byte) [][]byte { m[1] = m[1][:109]; return m }, Account{Confirmed: 6, Arrived: 5, Damaged: 1}},
		"a bit flipped": {func(m [][]byte) [][]byte { m[1][50] ^= 1; return m }, Account{Confirmed: 6, Arrived: 5, Damaged: 1}},
		"a stranger":    {func(m [][]byte) [][]byte { m[1][3] = 9; return m }, Account{Confirmed: 6, Arrived: 5, Damaged: 1}},
		"made up": {func(m [][]byte) [][]byte {
			more := append([]byte(nil), m[5]...)
			more[11]++
			return append(m, more)
		}, Account{Confirmed: 6, Arrived: 7, Unconfirmed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			a := deliver(c.change)
			require.Equal(t, c.want, a)
			require.Equal(t, name == "all", a.Balanced())
			require.Equal(t, name == "all", a.Check() == nil)
		})
	}
	require.False(t, Account{}.Balanced(), "a turn that did nothing has proved nothing")
}

func TestPublish_CountsTheTimeItIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger(4, 110)
		pace, err := Publish(context.Background(), l, time.Second, func(_ int, m []byte) error {
			time.Sleep(10 * time.Millisecond) // in the bubble's time
			l.Arrive(m)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, time.Second, pace.Elapsed)
		require.InDelta(t, 400, pace.PerSecond(), 4)
		require.NoError(t, l.Account().Check())
		require.Greater(t, l.Account().Confirmed, 440, "what does not count for the pace is in the account")
	})
}

func TestPublish_WaitsForAtLeastOneMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLedger(1, 110)
		pace, err := Publish(context.Background(), l, time.Second, func(int, []byte) error {
			time.Sleep(2500 * time.Millisecond) // in the bubble's time
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, Pace{Messages: 1, Elapsed: 3 * time.Second}, pace)
	})
}

func TestPublish_EndsWithTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	_, err := Publish(context.Background(), NewLedger(4, 110), time.Hour, func(sender int, _ []byte) error {
		if sender == 2 {
			return broken
		}
		return nil
	})
	require.ErrorIs(t, err, broken)
}

func TestPublish_EndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	_, err := Publish(ctx, NewLedger(1, 110), time.Hour, func(int, []byte) error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
}

// told is a contestant that confirms 10 messages, loses some of them, and notes its turns.
func told(name string, lost int, turns *[]string) Contestant {
	return Contestant{Name: name, Turn: func(_ context.Context, l *Ledger, d time.Duration) (Pace, error) {
		*turns = append(*turns, name)
		for i := range 10 {
			m := l.Message(nil, 0)
			l.Confirm(0, 1)
			if i >= lost {
				l.Arrive(m)
			}
		}
		return Pace{Messages: 10, Elapsed: d}, nil
	}}
}

func TestContest_TakesTurns(t *testing.T) {
	var turns, steps []string
	contest := Contest{Name: "c", Senders: 1, MessageBytes: 110, Contestants: []Contestant{told("a", 0, &turns), told("b", 0, &turns)}}
	plan := Plan{Rounds: 3, Turn: 2 * time.Second, Step: func(_, who string) { steps = append(steps, who) }}
	results, err := Run(context.Background(), plan, contest)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "b", "a", "a", "b"}, turns)
	require.Equal(t, turns, steps)
	require.Equal(t, []string{"a", "b"}, results[0].Contestants)
	require.Equal(t, Spread{Median: 5, Min: 5, Max: 5, Rounds: 3}, results[0].Rate("a"))
}

func TestMeasure_LostMessageFailsTheRun(t *testing.T) {
	var turns []string
	contest := Contest{Name: "c", Senders: 1, MessageBytes: 110, Contestants: []Contestant{told("a", 0, &turns), told("b", 1, &turns)}}
	_, err := Run(context.Background(), Plan{Rounds: 3, Turn: time.Second}, contest)
	var account *AccountError
	require.ErrorAs(t, err, &account)
	require.Equal(t, Account{Confirmed: 10, Arrived: 9}, account.Account)
	require.ErrorContains(t, err, "c, b, round 1")
	require.Len(t, turns, 2, "nothing is measured any more")
}

func TestFacts_NameWhatTheyCanFind(t *testing.T) {
	f := Gather(t.TempDir(), "github.com/stretchr/testify")
	require.Positive(t, f.Cores)
	require.Contains(t, f.Go, "go1.")
	require.NotEmpty(t, f.FileSystem)
}

func TestHeapWatch_SeesThePeak(t *testing.T) {
	before, w := Heap(), WatchHeap()
	kept := make([]byte, 32<<20)
	require.Greater(t, w.Peak()-before, int64(31<<20))
	runtime.KeepAlive(kept)
	require.InDelta(t, before, Heap(), 1<<20)
}

func TestFigures(t *testing.T) {
	for value, want := range map[float64]string{
		0: "0", 0.0412: "0.041", 0.75: "0.75", 1.216: "1.22", 23.41: "23.4", 402: "402", 5712: "5.71 k", 71_240: "71.2 k", 1_130_000: "1.13 M",
	} {
		require.Equal(t, want, Figure(value))
	}
	require.Equal(t, "2.00 (1.00–3.00)", Spread{Median: 2, Min: 1, Max: 3}.String())
	require.Equal(t, "0.4 MiB", MiB(400<<10))
}

func TestTable(t *testing.T) {
	table := Table{Head: []string{"what", "n"}}
	table.Add("a|b", "1")
	require.Equal(t, "| what | n |\n|---|---|\n| a\\|b | 1 |\n", table.Markdown())
}

func TestGoals(t *testing.T) {
	require.True(t, Goal{Want: 0.7, Got: 0.7}.Met())
	require.False(t, Goal{Want: 0.7, Got: 0.69}.Met())
	require.True(t, Goal{Want: 2, Got: 0.1, AtMost: true}.Met())
	require.False(t, Goal{Want: 2, Got: 2.1, AtMost: true}.Met())
	require.Equal(t, "at least 0.70: 0.65, missed", Goal{Want: 0.7, Got: 0.65}.Verdict())
}
