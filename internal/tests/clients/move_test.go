package clients

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A publisher has a route of three listeners. The one that it uses ends in order: what it has not handled is given back, and nothing
// comes twice. The next is killed: what was in hand there may. Which ones these are is left to the publisher: on a busy machine one
// that is preferred can take too long to greet, and is gone back to some seconds later.
func TestClients_StreamsMove(t *testing.T) {
	pairs(t, func(t *testing.T, from, to language) {
		w, subs := newRoute(t, from, to, "pub")
		goOnWithout := func(sub *process, said []string) {
			for _, line := range said {
				w.account.say(sub, line)
			}
			subs = slices.DeleteFunc(subs, func(s *process) bool { return s == sub })
			w.sub, w.also = subs[0], subs[1:]
		}
		w.also = subs[1:]
		w.pump(func() bool { return len(w.account.confirmed) >= 500 && w.account.last != nil }, true)
		first := w.account.last
		goOnWithout(first, first.finished(true))
		w.pump(func() bool { // what was confirmed is on its way
			return len(w.account.confirmed) == w.account.given && len(w.account.handled) == w.account.given
		}, false)
		require.Zero(t, w.check(), "what an orderly end gave back was not handled before")

		more := w.account.given + 500
		w.pump(func() bool { return w.account.given >= more && w.account.last != first }, true)
		second := w.account.last
		goOnWithout(second, second.killed())
		w.account.excuse()
		w.pump(func() bool { return w.account.given >= more+500 }, true)
		w.drain()
		t.Logf("%d of %d at the first, which ended; %d twice when the second was killed", w.account.by[first], w.account.given, w.check())
	})
}

// A publisher that takes three listeners in turn: one is killed, one ends in order, and the last gets everything.
func TestClients_TurnsGoOnWithoutOne(t *testing.T) {
	for _, from := range languages()[1:] {
		for _, to := range languages() {
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				t.Parallel()
				w, subs := newRoute(t, from, to, "turns")
				w.also = subs[1:]
				w.pump(func() bool { // each has its turns
					return len(w.account.confirmed) >= 500 && !slices.ContainsFunc(subs, func(sub *process) bool { return w.account.by[sub] == 0 })
				}, true)
				for _, line := range subs[1].killed() {
					w.account.say(subs[1], line)
				}
				w.account.excuse()
				w.also = subs[2:]
				more := w.account.given + 500
				w.pump(func() bool { return w.account.given >= more && len(w.account.confirmed) > more-ahead }, true)
				for _, line := range subs[2].finished(true) {
					w.account.say(subs[2], line)
				}
				w.also = nil
				w.pump(func() bool { return w.account.given >= more+500 }, true)
				w.drain()
				t.Logf("%d messages: %d twice when the second was killed", w.account.given, w.check())
			})
		}
	}
}

// newRoute starts three subscribers, and a publisher to all of them.
func newRoute(t *testing.T, from, to language, command string) (w *world, subs []*process) {
	t.Helper()
	var addresses []string
	for range 3 {
		sub := to.startSub(t)
		subs = append(subs, sub)
		addresses = append(addresses, sub.listening())
	}
	w = &world{t: t, from: from, to: to, net: newProxy(t, 1, 0), account: newAccount(), sub: subs[0]}
	w.pub = from.start(t, command, strings.Join(addresses, ","), "orders")
	return w, subs
}

// A listener that is stopped without a word is left after a while, and its copies are void when its publisher comes back.
func TestClients_SilentListenerIsLeft(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as a publisher has patience, 17 s")
	}
	for _, from := range languages()[1:] {
		t.Run(from.name+" to go", func(t *testing.T) {
			t.Parallel()
			w, subs := newRoute(t, from, languages()[0], "pub")
			subs[2].kill()
			w.pump(func() bool { return len(w.account.confirmed) >= 300 }, true)
			for i := range w.account.given + ahead { // what is given until it is found out
				if message := fmt.Sprint("m", i); !w.account.confirmed[message] {
					w.account.excused[message] = true
				}
			}
			subs[0].stop()
			w.sub, w.also = subs[1], subs[:1]
			more := w.account.given + 500
			w.pump(func() bool { return w.account.given >= more }, true)
			require.NoError(t, subs[0].cmd.Process.Signal(syscall.SIGCONT))
			for _, line := range subs[1].finished(true) { // the third is not there: it goes back to the first
				w.account.say(subs[1], line)
			}
			before := w.account.by[subs[0]]
			w.sub, w.also = subs[0], nil
			w.pump(func() bool { return w.account.given >= more+500 }, true)
			w.drain()
			require.Greater(t, w.account.by[subs[0]], before+300)
			t.Logf("%d messages: %d twice", w.account.given, w.check())
		})
	}
}
