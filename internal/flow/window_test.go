package flow

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func amount(messages, bytes int) Amount { return Amount{Messages: messages, Bytes: bytes} }

func openWindow(messages, bytes int) *Window {
	return openWindowOf(NewBudget(10*bytes), messages, bytes)
}

// openWindowOf is a window that has a consumer.
func openWindowOf(b *Budget, messages, bytes int) *Window {
	w := NewWindow(amount(messages, bytes), b)
	w.Consumers(1)
	w.Open()
	return w
}

// line is claims in a window, and what they were granted, in that order.
type line struct {
	w       *Window
	granted []string
	got     map[string]Amount
}

func (l *line) wait(name string, want, least Amount) *Claim {
	c := &Claim{Want: want, Least: least, Enough: least, Grant: func(a Amount) {
		l.granted = append(l.granted, name)
		l.got[name] = a
	}}
	l.w.Wait(c)
	return c
}

func newLine(w *Window) *line { return &line{w: w, got: map[string]Amount{}} }

func TestWindow_TakeGivesUpToWhatIsFree(t *testing.T) {
	w := openWindow(10, 100)
	require.Equal(t, amount(3, 30), w.Take(amount(3, 30)))
	require.Equal(t, amount(7, 50), w.Take(amount(8, 50)))
	require.Zero(t, w.Take(amount(1, 1)), "no message is free")
	w.Release(amount(7, 50))
	require.Equal(t, amount(1, 70), w.Take(amount(1, 200)))
	require.Zero(t, w.Take(amount(1, 1)), "no byte is free")
	require.Zero(t, w.Take(amount(0, 10)))
	require.Zero(t, w.Take(amount(1, 0)))
	w.Release(amount(4, 100))
	w.Release(Amount{})
	require.Equal(t, w.size, w.free)
}

func TestWindow_ServesClaimsInOrder(t *testing.T) {
	w := openWindow(10, 100)
	require.Equal(t, w.size, w.Take(amount(10, 100)))
	l := newLine(w)
	l.wait("a", amount(5, 50), amount(5, 50))
	l.wait("b", amount(1, 1), amount(1, 1))
	l.wait("c", amount(9, 90), amount(2, 20))
	require.Empty(t, l.granted)
	w.Release(amount(4, 40))
	require.Empty(t, l.granted, "b does not overtake a, which needs more")
	require.Zero(t, w.Take(amount(1, 1)), "nor does anybody else")
	w.Release(amount(1, 10))
	require.Equal(t, []string{"a"}, l.granted)
	w.Release(amount(1, 9))
	require.Equal(t, []string{"a", "b"}, l.granted)
	w.Release(amount(1, 41))
	require.Equal(t, []string{"a", "b"}, l.granted, "c needs two messages")
	w.Release(amount(3, 0))
	require.Equal(t, []string{"a", "b", "c"}, l.granted)
	require.Equal(t, map[string]Amount{"a": amount(5, 50), "b": amount(1, 1), "c": amount(4, 49)}, l.got)
	for _, a := range l.got {
		w.Release(a)
	}
	require.Equal(t, w.size, w.free)
}

func TestWindow_LimitsClaimsToWhatItCanEverGive(t *testing.T) {
	w := openWindow(10, 100)
	l := newLine(w)
	l.wait("huge", amount(1<<30, 1<<30), amount(1<<30, 1<<30))
	require.Equal(t, amount(10, 100), l.got["huge"])
	w.Release(w.size)
	l.wait("none", amount(0, 0), amount(-1, -1))
	require.Equal(t, amount(1, 1), l.got["none"])
	l.wait("least above want", amount(1, 1), amount(3, 30))
	require.Equal(t, amount(3, 30), l.got["least above want"])
}

func TestWindow_GivesNothingWhenClosed(t *testing.T) {
	w := NewWindow(amount(10, 100), NewBudget(1000))
	l := newLine(w)
	l.wait("a", amount(1, 1), amount(1, 1))
	require.Zero(t, w.Take(amount(1, 1)))
	require.Empty(t, l.granted)
	w.Open()
	w.Open()
	require.Equal(t, []string{"a"}, l.granted)
	require.Equal(t, amount(9, 99), w.free)
}

func TestWindow_CancelledClaimsLeaveTheLine(t *testing.T) {
	w := openWindow(10, 100)
	w.Take(amount(10, 100))
	l := newLine(w)
	big := l.wait("big", amount(10, 100), amount(10, 100))
	small := l.wait("small", amount(2, 20), amount(2, 20))
	w.Release(amount(2, 20))
	require.Empty(t, l.granted)
	w.Cancel(big)
	require.Equal(t, []string{"small"}, l.granted, "who stood behind it goes on")
	w.Cancel(big)
	w.Cancel(small) // it has been granted: its owner has the room
	require.Equal(t, amount(0, 0), w.free)
	w.Release(amount(10, 100))
	require.Equal(t, w.size, w.free)
	require.Equal(t, []string{"small"}, l.granted)
}

func TestWindow_GrantMayUseIt(t *testing.T) {
	w := openWindow(2, 100)
	w.Take(amount(2, 2))
	var granted []int
	for i := range 5 {
		w.Wait(&Claim{Want: amount(1, 1), Least: amount(1, 1), Grant: func(a Amount) {
			granted = append(granted, i)
			w.Release(a) // such as a stream that has gone
		}})
	}
	w.Release(amount(2, 2))
	require.Len(t, granted, 5)
	require.Equal(t, w.size, w.free)
}

func TestBudget_IsSharedByWindows(t *testing.T) {
	b := NewBudget(160) // 20 of it are the reserve
	w1, w2 := openWindowOf(b, 10, 120), openWindowOf(b, 10, 120)
	require.Equal(t, amount(5, 120), w1.Take(amount(5, 120)))
	require.Equal(t, amount(5, 20), w2.Take(amount(5, 80)), "what is left of the budget without the reserve")
	require.Zero(t, w2.Take(amount(1, 1)))
	require.Equal(t, amount(5, 100), w2.free, "what was not given is not taken")
	w1.Release(amount(5, 120))
	require.Equal(t, amount(1, 10), w2.Take(amount(1, 10)))
}

// account is a window as the random test sees it.
type account struct {
	w       *Window
	waiting []*Claim
	held    []Amount

	consumers int
}

// step does something at random to a window.
func (a *account) step(fail func(format string, args ...any), rng *rand.Rand) {
	want := amount(1+rng.IntN(8), 1+rng.IntN(20))
	switch rng.IntN(8) {
	case 0:
		if got := a.w.Take(want); got != (Amount{}) {
			a.held = append(a.held, got)
		}
	case 1:
		c := &Claim{
			Want: want, Least: amount(1+rng.IntN(3), 1+rng.IntN(10)), Enough: amount(1+rng.IntN(6), 1+rng.IntN(20)),
		}
		a.waiting = append(a.waiting, c)
		c.Grant = func(got Amount) {
			if !got.covers(c.Least) || !c.Want.covers(got) || c != a.waiting[0] {
				fail("granted %+v to %+v", got, *c)
			}
			a.waiting = a.waiting[1:]
			a.held = append(a.held, got)
		}
		a.w.Wait(c)
	case 2:
		if n := len(a.waiting); n > 0 && rng.IntN(3) == 0 {
			i := rng.IntN(n)
			c := a.waiting[i]
			a.waiting = append(a.waiting[:i:i], a.waiting[i+1:]...)
			a.w.Cancel(c)
		}
	case 3:
		a.w.Open()
	case 4:
		if a.w.SetHungry(rng.IntN(2) == 0) {
			a.w.Serve()
		}
	case 5:
		if n := 1 - 2*rng.IntN(2); a.consumers+n >= 0 {
			a.consumers += n
			a.w.Consumers(n)
		}
	default:
		if n := len(a.held); n > 0 {
			i := rng.IntN(n)
			got := a.held[i]
			a.held = append(a.held[:i:i], a.held[i+1:]...)
			a.w.Release(got)
		}
	}
}

// TestWindow_KeepsItsBooks does random things to windows that share a budget. After each the sums must agree, and no
// claim may wait that could be served.
func TestWindow_KeepsItsBooks(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		total := 50 + rng.IntN(200)
		b := NewBudget(total)
		accounts := make([]*account, 1+rng.IntN(4))
		for i := range accounts {
			accounts[i] = &account{w: NewWindow(amount(1+rng.IntN(20), 20+rng.IntN(30)), b)}
		}
		for step := range 200 {
			accounts[rng.IntN(len(accounts))].step(func(format string, args ...any) {
				t.Fatalf("seed %d step %d: "+format, append([]any{seed, step}, args...)...)
			}, rng)
			requireBalanced(t, b, total, accounts)
		}
		for _, a := range accounts {
			a.w.Consumers(1)
			a.w.Open()
			if a.w.SetHungry(true) {
				a.w.Serve()
			}
		}
		for rest := true; rest; { // the granted claims give back until none waits
			rest = false
			for _, a := range accounts {
				for len(a.held) > 0 {
					got := a.held[0]
					a.held = a.held[1:]
					a.w.Release(got)
					rest = true
				}
			}
		}
		for _, a := range accounts {
			require.Empty(t, a.waiting, "seed %d: everybody is served in the end", seed)
			require.Equal(t, a.w.size, a.w.free, "seed %d", seed)
		}
		require.Equal(t, int64(total), b.free.Load(), "seed %d", seed)
		require.Zero(t, b.absent, "seed %d", seed)
	}
}

func requireBalanced(t *testing.T, b *Budget, total int, accounts []*account) {
	t.Helper()
	taken, absent := 0, 0
	for _, a := range accounts {
		held := Amount{}
		for _, h := range a.held {
			held.Messages += h.Messages
			held.Bytes += h.Bytes
		}
		taken += held.Bytes
		if a.consumers == 0 {
			absent += held.Bytes
		}
		if free := a.w.free; free.Messages < 0 || free.Bytes < 0 || a.w.heldLocked() != held {
			t.Fatalf("%+v are free and %+v held of %+v", free, held, a.w.size)
		}
		require.EqualValues(t, held.Bytes, a.w.account.held.Load())
		requireServed(t, a.w)
	}
	if free := b.free.Load(); free < 0 || int(free)+taken != total {
		t.Fatalf("the budget has %d free and %d taken of %d", free, taken, total)
	}
	require.EqualValues(t, absent, b.absent)
	b.changed.Store(true)
	require.Nil(t, b.next(), "an account waits, and could have what it needs")
	require.Equal(t, b.waiting.n > 0, b.queued.Load())
}

// requireServed requires that a claim waits only where the window or the budget has too little.
func requireServed(t *testing.T, w *Window) {
	t.Helper()
	waits, _ := w.account.Waits()
	if len(w.waiting) == 0 || !w.ready {
		require.False(t, waits)
		return
	}
	least := w.waiting[0].Enough
	if w.hungry.Load() {
		least = w.waiting[0].Least
	}
	if covered := w.free.covers(least); covered || w.hungry.Load() { // SetHungry(false) serves no claim
		require.Equal(t, covered, waits, "%+v waits, and %+v are free", least, w.free)
	}
}

// TestWindow_UnderConcurrency has many goroutines wait for room that others hold: a wake-up that is lost anywhere
// leaves all of them waiting, which synctest reports.
func TestWindow_UnderConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget, workers, rounds = 40, 12, 300
		b := NewBudget(budget)
		windows := make([]*Window, 4)
		for i := range windows {
			windows[i] = openWindowOf(b, 6, 30)
		}
		var wg sync.WaitGroup
		for id := range workers {
			wg.Go(func() { // ends after its rounds
				rng := rand.New(rand.NewPCG(uint64(id), 4))
				for range rounds {
					w := windows[rng.IntN(len(windows))]
					want := amount(1+rng.IntN(4), 1+rng.IntN(30))
					if got := w.Take(want); got != (Amount{}) {
						w.Release(got)
						continue
					}
					granted := make(chan Amount, 1)
					c := &Claim{Want: want, Least: want, Enough: want, Grant: func(a Amount) { granted <- a }}
					w.Wait(c)
					if rng.IntN(8) == 0 {
						w.Cancel(c)
						select {
						case got := <-granted:
							w.Release(got)
						default: // a grant may still be on its way: this one is given back where it arrives
							go func() { // ends with the grant, or with the test's last word
								select {
								case got := <-granted:
									w.Release(got)
								case <-t.Context().Done():
								}
							}()
						}
						continue
					}
					w.Release(<-granted)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		for _, w := range windows {
			require.Empty(t, w.waiting)
			require.Equal(t, w.size, w.free)
		}
		require.Equal(t, int64(budget), b.free.Load())
	})
}

// TestBudget_IsNeverFreeWhileAWindowStarves has one window give the whole budget back at the moment at which the other
// finds it empty. Nothing else would wake the other one.
func TestBudget_IsNeverFreeWhileAWindowStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget, rounds = 10, 3000
		b := NewBudget(budget)
		w1, w2 := openWindowOf(b, 1, budget), openWindowOf(b, 1, budget)
		all := amount(1, budget)
		begin, ended := make(chan Amount), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { // ends after its rounds
			for range rounds {
				w1.Release(<-begin)
				ended <- struct{}{}
			}
		})
		for range rounds {
			granted := make(chan struct{})
			begin <- w1.Take(all)
			w2.Wait(&Claim{Want: all, Least: all, Grant: func(Amount) { close(granted) }})
			<-ended
			<-granted
			w2.Release(all)
		}
		wg.Wait()
	})
}
