package demo

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func confirmed(ids ...string) (receipts []receipt) {
	for _, id := range ids {
		receipts = append(receipts, receipt{ID: id, Size: 10, Sum: "sum of " + id})
	}
	return receipts
}

func arrive(l *ledger, o outcome, ids ...string) {
	for _, id := range ids {
		l.arrive(id, o, "sum of "+id, 10)
	}
}

// Each case takes something away from, or adds to, a run of three messages that all arrive.
func TestAccount_ComparesBothSides(t *testing.T) {
	for name, test := range map[string]struct {
		run  func(*ledger)
		want Account
	}{
		"all is well": {func(l *ledger) {
			l.confirm(confirmed("a", "b", "c"))
			arrive(l, handled, "a", "b")
			arrive(l, poisoned, "c")
		}, Account{Published: 3, Handled: 2, Poisoned: 1, Bytes: 30}},
		"arrivals before their confirmation": {func(l *ledger) {
			arrive(l, handled, "a", "b")
			arrive(l, poisoned, "c")
			l.confirm(confirmed("a", "b", "c"))
		}, Account{Published: 3, Handled: 2, Poisoned: 1, Bytes: 30}},
		"one never arrives": {func(l *ledger) {
			l.confirm(confirmed("a", "b", "c"))
			arrive(l, handled, "a", "b")
		}, Account{Published: 3, Handled: 2, Lost: 1, Bytes: 30}},
		"one arrives with another content": {func(l *ledger) {
			l.confirm(confirmed("a", "b", "c"))
			arrive(l, handled, "a", "b")
			l.arrive("c", handled, "sum of something else", 10)
		}, Account{Published: 3, Handled: 2, Lost: 1, Bytes: 30}},
		"one arrives three times": {func(l *ledger) {
			l.confirm(confirmed("a", "b", "c"))
			arrive(l, handled, "a", "b", "c", "a", "a")
		}, Account{Published: 3, Handled: 3, Duplicates: 2, Bytes: 30}},
		"one is handled and poisoned": {func(l *ledger) {
			l.confirm(confirmed("a", "b", "c"))
			arrive(l, handled, "a", "b", "c")
			arrive(l, poisoned, "c")
		}, Account{Published: 3, Handled: 3, Duplicates: 1, Bytes: 30}},
		"one arrives without a confirmation": {func(l *ledger) {
			l.confirm(confirmed("a", "b"))
			arrive(l, handled, "a", "b", "c")
		}, Account{Published: 2, Handled: 2, Unconfirmed: 1, Bytes: 20}},
		"two are refused": {func(l *ledger) {
			l.refuse(refusal{TooLarge: true})
			l.refuse(refusal{})
		}, Account{Refused: 2, Unreadable: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			test.run(l)
			got := l.account("", "", 0)
			require.Equal(t, test.want, got)
			require.Equal(t, got.Lost == 0 && got.Duplicates == 0, got.OK())
			require.Equal(t, got.Published, got.Handled+got.Poisoned+got.Lost)
		})
	}
}

func TestLedger_WaitEndsWithTheLastOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.confirm(confirmed("a", "b"))
		done := make(chan struct{})
		go func() {
			l.awaitOutcomes(time.Minute)
			close(done)
		}()
		time.Sleep(50 * time.Second) // of the bubble's clock
		arrive(l, handled, "a")
		time.Sleep(50 * time.Second)
		arrive(l, handled, "b")
		<-done
		require.Zero(t, l.open())
	})
}

func TestLedger_WaitGivesUpWhenNothingArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.confirm(confirmed("a"))
		start := time.Now()
		l.awaitOutcomes(time.Minute)
		require.Equal(t, time.Minute, time.Since(start))
		require.Equal(t, 1, l.open())
	})
}

func TestAccount_ReportsUnconfirmedArrivals(t *testing.T) {
	l := newLedger()
	arrive(l, handled, "a")
	var b strings.Builder
	require.NoError(t, l.account("src", "topic", time.Second).WriteText(&b))
	require.Contains(t, b.String(), "besides     1 arrived")
}

func TestReadEvents(t *testing.T) {
	for events, want := range map[string]bool{
		"":                      false,
		`{"found":{"files":1}}`: false,
		`{"done":true}`:         true,
		`{"confirmed":[{"id":"a"}]}` + "\n" + `{"done":true}`: true,
	} {
		done, err := readEvents(strings.NewReader(events), newLedger(), newScreen(&strings.Builder{}, false, nil))
		require.NoError(t, err)
		require.Equal(t, want, done, events)
	}
	_, err := readEvents(strings.NewReader("{}\nnonsense"), newLedger(), nil)
	require.Error(t, err)
}
