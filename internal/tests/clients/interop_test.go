package clients

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

const (
	cuts  = 40 // made by the network
	kills = 10 // of publisher and subscriber in turn
	ahead = 100
)

// account has one entry for each message that a publisher was given.
type account struct {
	given     int
	confirmed map[string]bool
	handled   map[string]int
	excused   map[string]bool // a kill may have doubled it
	by        map[*process]int
	last      *process // that has handled one
}

func newAccount() account {
	return account{confirmed: map[string]bool{}, handled: map[string]int{}, excused: map[string]bool{}, by: map[*process]int{}}
}

func (a *account) say(p *process, line string) {
	p.t.Helper()
	if p.cmd.Args[len(p.cmd.Args)-3] == "sub" {
		a.handled[line]++
		a.by[p]++
		a.last = p
		return
	}
	message, ok := strings.CutPrefix(line, "ok ")
	require.True(p.t, ok, "%s says %q", p.name, line)
	a.confirmed[message] = true
}

// excuse marks all that is neither confirmed nor only with the publisher: a kill leaves open what became of it.
func (a *account) excuse() (open []string) {
	for i := range a.given {
		if message := fmt.Sprint("m", i); !a.confirmed[message] {
			a.excused[message] = true
			open = append(open, message)
		}
	}
	return open
}

// world is a publisher and a subscriber, of one language or two, with a network between them.
type world struct {
	t        *testing.T
	from, to language
	net      *proxy
	pub, sub *process
	also     []*process // more subscribers
	account  account
}

func (w *world) startSub() {
	w.sub = w.to.startSub(w.t)
	w.net.target.Store(w.sub.listening())
}

func (w *world) startPub() { w.pub = w.from.start(w.t, "pub", w.net.address(), "orders") }

// pump gives out messages and takes what is said, until done.
func (w *world) pump(done func() bool, give bool) {
	w.t.Helper()
	deadline := time.After(patience)
	look := time.NewTicker(10 * time.Millisecond) // at the others
	defer look.Stop()
	for !done() {
		if give && w.account.given-len(w.account.confirmed) < ahead {
			w.pub.write(fmt.Sprint("m", w.account.given))
			w.account.given++
			if w.account.given%8 != 0 {
				continue
			}
		}
		for _, sub := range w.also {
			for len(sub.lines) > 0 {
				w.account.say(sub, <-sub.lines)
			}
		}
		select {
		case line, ok := <-w.pub.lines:
			require.True(w.t, ok, "the publisher has ended")
			w.account.say(w.pub, line)
		case line, ok := <-w.sub.lines:
			require.True(w.t, ok, "the subscriber has ended")
			w.account.say(w.sub, line)
		case <-look.C:
		case <-deadline:
			require.Fail(w.t, "no progress", "%d given, %d confirmed, %d handled, %d cuts left",
				w.account.given, len(w.account.confirmed), len(w.account.handled), w.net.left.Load())
		}
	}
}

// killPub kills the publisher. The next one gets what was not confirmed again, as an application without an outbox would do.
func (w *world) killPub() {
	for _, line := range w.pub.killed() {
		w.account.say(w.pub, line)
	}
	open := w.account.excuse()
	w.startPub()
	for _, message := range open {
		w.pub.write(message)
	}
}

func (w *world) killSub() {
	for _, line := range w.sub.killed() {
		w.account.say(w.sub, line)
	}
	w.account.excuse()
	w.startSub()
}

func (w *world) check() (duplicates int) {
	w.t.Helper()
	for i := range w.account.given {
		message := fmt.Sprint("m", i)
		n := w.account.handled[message]
		require.Positive(w.t, n, "%s is lost", message)
		require.True(w.t, n == 1 || w.account.excused[message], "%s came %d times", message, n)
		duplicates += n - 1
	}
	require.Len(w.t, w.account.handled, w.account.given)
	return duplicates
}

func newWorld(t *testing.T, from, to language, cuts int) *world {
	t.Helper()
	w := &world{t: t, from: from, to: to, net: newProxy(t, 1, cuts), account: newAccount()}
	w.startSub()
	w.startPub()
	return w
}

// drain has the publisher end of its own accord, and everything handled.
func (w *world) drain() {
	w.t.Helper()
	w.pump(func() bool { return len(w.account.confirmed) == w.account.given }, false)
	require.NoError(w.t, w.pub.stdin.Close())
	require.Empty(w.t, w.pub.finished(false))
	for _, line := range w.sub.finished(true) {
		w.account.say(w.sub, line)
	}
}

// pairs are all languages with each other, but for Go with itself, which other tests are about.
func pairs(t *testing.T, run func(t *testing.T, from, to language)) {
	for _, from := range languages() {
		for _, to := range languages() {
			if from.name == "go" && to.name == "go" {
				continue
			}
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				t.Parallel()
				run(t, from, to)
			})
		}
	}
}

func TestClients_CutsAndKills(t *testing.T) {
	pairs(t, func(t *testing.T, from, to language) {
		w := newWorld(t, from, to, cuts)
		for killed := range kills {
			next, progress := int64(cuts-(killed+1)*cuts/kills), len(w.account.confirmed)+ahead/2
			w.pump(func() bool { return w.net.left.Load() <= next && len(w.account.confirmed) >= progress }, true)
			if killed%2 == 0 {
				w.killSub()
			} else {
				w.killPub()
			}
		}
		more := w.account.given + 500
		w.pump(func() bool { return w.account.given >= more }, true)
		w.drain()
		t.Logf("%d messages, %d cuts, %d kills: 0 lost, %d twice, of %d that were open at a kill",
			w.account.given, cuts, kills, w.check(), len(w.account.excused))
	})
}

// Cuts alone double nothing, and neither does a subscriber that ends in order and another that takes its place.
func TestClients_CutsDoubleNothing(t *testing.T) {
	pairs(t, func(t *testing.T, from, to language) {
		w := newWorld(t, from, to, 10)
		w.pump(func() bool { return w.net.left.Load() <= 0 }, true)
		more := w.account.given + 300
		w.pump(func() bool { return w.account.given >= more }, true)
		for _, line := range w.sub.finished(true) {
			w.account.say(w.sub, line)
		}
		w.startSub()
		w.pump(func() bool { return w.account.given >= more+300 }, true)
		w.drain()
		require.Empty(t, w.account.excused)
		require.Zero(t, w.check())
	})
}

// Under TLS frames have no checksum, and a token lets in. A large message takes many records.
func TestClients_TLSAndToken(t *testing.T) {
	a := testkit.NewAuthority(t)
	certificate, key := a.Issue("peer")
	dir := t.TempDir()
	for name, data := range map[string][]byte{"ca.pem": a.PEM(), "cert.pem": certificate, "key.pem": key} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
	pairs(t, func(t *testing.T, from, to language) {
		from.env = append(slices.Clone(from.env), tlsDir+"="+dir)
		to.env = append(slices.Clone(to.env), tlsDir+"="+dir)
		w := newWorld(t, from, to, 0)
		w.pump(func() bool { return len(w.account.confirmed) >= 200 }, true)
		large := strings.Repeat("large ", 10_000)
		w.pub.write(large)
		w.pump(func() bool { return w.account.confirmed[large] && w.account.handled[large] > 0 }, false)
		require.Equal(t, 1, w.account.handled[large])
		delete(w.account.handled, large)
		delete(w.account.confirmed, large)
		w.drain()
		require.Zero(t, w.check())
	})
}

// The speed of each pair, for the clients' documents: SPEED=200000 says how many messages.
func TestClients_Speed(t *testing.T) {
	count := os.Getenv("SPEED")
	if count == "" {
		t.Skip("SPEED=200000 says how many messages to measure with")
	}
	messages, err := strconv.Atoi(count)
	require.NoError(t, err)
	for _, from := range languages() {
		for _, to := range languages() {
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				sub := to.start(t, "take", "127.0.0.1:0", "orders", count)
				sub.host = "127.0.0.1"
				pub := from.start(t, "send", sub.listening(), "orders", count, "100")
				sent, received := pub.next(), sub.next()
				pub.finished(false)
				sub.finished(false)
				t.Logf("%s messages of 100 bytes: %s/s sent and acked, %s/s received; %v and %v of processor time for each",
					count, sent, received, pub.processorTime(messages), sub.processorTime(messages))
			})
		}
	}
}
