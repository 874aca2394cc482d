package hosts

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/route"
)

var syscallKill = syscall.SIGKILL

// runs is how often each measure is taken; the median counts.
func runs(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("HOSTS"))
	if err != nil || n < 1 {
		t.Skip("takes minutes, and processes: HOSTS=5 runs each measure five times")
	}
	return n
}

var policies = map[string]route.Policy{
	"Failover": route.Failover, "RoundRobin": route.RoundRobin, "LeastPending": route.LeastPending, "Hash": route.Hash,
}

var confirms = map[string]buffstreams.Confirm{
	"Enqueued": buffstreams.ConfirmEnqueued, "Received": buffstreams.ConfirmReceived, "Handled": buffstreams.ConfirmHandled,
}

// TestHosts_RollingRestart: three replicas, each down for two seconds, one after the other, with 5,000 messages a second.
func TestHosts_RollingRestart(t *testing.T) {
	n := runs(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for policy := range policies {
			for confirm := range confirms {
				t.Run(fmt.Sprintf("%v/%s/%s", sig, policy, confirm), func(t *testing.T) {
					for range n {
						rollingRestart(t, sig, policy, confirm)
					}
				})
			}
		}
	}
}

func rollingRestart(t *testing.T, sig syscall.Signal, policy, confirm string) {
	w := newWorld(t, policies[policy], confirms[confirm], make([]time.Duration, 3), 64)
	l := startLoad(w.pub, 5000)
	time.Sleep(time.Second)
	for _, h := range w.hosts {
		h.end(sig)
		time.Sleep(2 * time.Second)
		h.start(t)
		time.Sleep(time.Second)
	}
	l.end()
	lost := w.account(t, l, 15*time.Second)
	name, goal := "H1", "<= 300 ms"
	if sig == syscall.SIGKILL {
		name, goal = "H2", "<= 1 s"
	}
	if confirm == "Handled" {
		goal = "as handlers take"
	}
	report.note(name, fmt.Sprintf("%v, %s: longest Publish", sig, confirm), goal, "ms", milliseconds(l.longest))
	report.note(name, fmt.Sprintf("%v: lost, or failed", sig), "0", "", float64(lost)+float64(l.errs.Load()))
	report.note(name, fmt.Sprintf("%v: duplicates", sig), map[string]string{"H1": "0", "H2": "what was in hand"}[name], "", float64(w.seen.duplicates()))
	if policy == "Hash" {
		report.note("H5", fmt.Sprintf("%v: inversions in a key", sig), "0", "", float64(w.seen.inversions))
	}
	require.Zero(t, l.errs.Load())
	limit := time.Second
	if sig == syscall.SIGTERM {
		require.Zero(t, w.seen.duplicates())
		if confirm == "Received" {
			limit = 300 * time.Millisecond
		}
	}
	if confirm != "Handled" { // else it takes as long as handlers do
		require.Less(t, l.longest, limit)
	}
	if policy == "Hash" {
		require.Zero(t, w.seen.inversions)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// account waits until everything that was published is handled, and says what became of it.
func (w *world) account(t *testing.T, l *load, within time.Duration) (lost int) {
	sent, began := int(l.next.Load()), time.Now()
	for w.seen.count() < sent && time.Since(began) < within {
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("sent %d, failed %d, lost %d, duplicated %d, inversions %d, longest Publish %v, all handled %v after the last, last error %v",
		sent, l.errs.Load(), sent-w.seen.count(), w.seen.duplicates(), w.seen.inversions, l.longest.Round(time.Millisecond),
		time.Since(began).Round(time.Millisecond), l.lastErr.Load())
	require.Equal(t, sent, w.seen.count())
	return sent - w.seen.count()
}

// TestHosts_OneStops without a word (SIGSTOP), and goes on later: what it had moves after MoveAfter, and it must not deliver more
// of that than it had received.
func TestHosts_OneStops(t *testing.T) {
	n := runs(t)
	for policy := range policies {
		t.Run(policy, func(t *testing.T) {
			for range n {
				w := newWorld(t, policies[policy], buffstreams.ConfirmReceived, make([]time.Duration, 3), 64)
				l := startLoad(w.pub, 2000)
				time.Sleep(time.Second)
				require.NoError(t, w.hosts[0].cmd.Process.Signal(syscall.SIGSTOP))
				time.Sleep(8 * time.Second)
				require.NoError(t, w.hosts[0].cmd.Process.Signal(syscall.SIGCONT))
				time.Sleep(2 * time.Second)
				l.end()
				lost := w.account(t, l, 15*time.Second)
				report.note("H2", "SIGSTOP: longest Publish", "<= 6000 ms", "ms", milliseconds(l.longest))
				report.note("H2", "SIGSTOP: lost", "0", "", float64(lost))
				report.note("H2", "SIGSTOP: duplicates", "<= its window", "", float64(w.seen.duplicates()))
				require.Less(t, l.longest, 6*time.Second)
			}
		})
	}
}

// TestHosts_OneNeverReturns with a thousand messages that it has received and not handled.
func TestHosts_OneNeverReturns(t *testing.T) {
	n := runs(t)
	for _, policy := range []string{"RoundRobin", "LeastPending", "Hash"} {
		t.Run(policy, func(t *testing.T) {
			for range n {
				w := newWorld(t, policies[policy], buffstreams.ConfirmReceived, []time.Duration{time.Hour, 0, 0}, 1)
				l := startLoad(w.pub, 3000)
				time.Sleep(time.Second)
				l.end()
				pending := int(l.next.Load()) - w.seen.count()
				w.hosts[0].end(syscall.SIGKILL)
				t.Logf("%d pending when it is killed", pending)
				began := time.Now()
				w.account(t, l, 7*time.Second)
				report.note("H3", fmt.Sprintf("%s: all handled elsewhere after", policy), "<= 7000 ms", "ms", milliseconds(time.Since(began)))
			}
		})
	}
}

// TestHosts_OneIsSlow: one of three is a hundred times slower than the others.
func TestHosts_OneIsSlow(t *testing.T) {
	n := runs(t)
	const quick, rate = 2 * time.Millisecond, 600
	throughput := func(t *testing.T, policy route.Policy, work []time.Duration) float64 {
		w := newWorld(t, policy, buffstreams.ConfirmReceived, work, 1)
		l := startLoad(w.pub, rate)
		time.Sleep(2 * time.Second)
		before, began := w.seen.count(), time.Now()
		time.Sleep(5 * time.Second)
		figure := float64(w.seen.count()-before) / time.Since(began).Seconds()
		l.end()
		require.Zero(t, l.errs.Load(), "%v", l.lastErr.Load())
		return figure
	}
	for _, policy := range []string{"LeastPending", "RoundRobin"} {
		t.Run(policy, func(t *testing.T) {
			var ratios []float64
			for range n {
				two := throughput(t, policies[policy], []time.Duration{quick, quick})
				three := throughput(t, policies[policy], []time.Duration{quick, quick, 100 * quick})
				t.Logf("two fast ones %.0f/s, with a slow one %.0f/s: %.2f of them, %.2f of what was offered", two, three, three/two, three/rate)
				if policy == "RoundRobin" {
					two = rate
				}
				ratios = append(ratios, three/two)
			}
			least := map[string]float64{"LeastPending": 0.95, "RoundRobin": 0.66}[policy]
			for _, r := range ratios {
				report.note("H4", policy+", one of three 100 times slower", fmt.Sprintf(">= %v", least), "", r)
			}
			require.GreaterOrEqual(t, median(ratios), least)
		})
	}
}

// TestHosts_SilentOnesInFront: the first message is there within a second.
func TestHosts_SilentOnesInFront(t *testing.T) {
	n := runs(t)
	for policy := range policies {
		for range n {
			w := newWorld(t, policies[policy], buffstreams.ConfirmReceived, make([]time.Duration, 4), 1)
			for _, h := range w.hosts[:3] {
				h.stop(t)
			}
			l := startLoad(w.pub, 100)
			began := time.Now()
			for w.seen.count() == 0 {
				require.Less(t, time.Since(began), 10*time.Second, "%+v", w.pub.Stats().Addresses)
				time.Sleep(time.Millisecond)
			}
			took := time.Since(began)
			t.Logf("%s: first message after %v", policy, took)
			l.end()
			report.note("H9", "three silent addresses in front: first message after", "<= 1000 ms", "ms", milliseconds(took))
			require.Less(t, took, time.Second)
		}
	}
}
