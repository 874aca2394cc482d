package chaos

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// What may differ between the medians of the first and of the last third of a soak.
const (
	memoryGrowth     = 32 << 20 // bytes, besides a quarter
	goroutineGrowth  = 100
	descriptorGrowth = 100
)

// TestSoak is chaos for as long as SOAK says, under which the process must not grow.
func TestSoak(t *testing.T) {
	text := os.Getenv("SOAK")
	if text == "" {
		t.Skip("SOAK says how long, such as 30m")
	}
	length, err := time.ParseDuration(text)
	require.NoError(t, err, "SOAK")
	testkit.CheckLeaks(t)
	seed := testkit.EnvNumber(t, "CHAOS_SEED", uint64(time.Now().UnixNano())%1e9)
	perFault := testkit.EnvNumber(t, "CHAOS_MESSAGES", 1000)
	t.Logf("%v; repeat this schedule with CHAOS_SEED=%d CHAOS_MESSAGES=%d (of each flow at each fault)", length, seed, perFault)

	began := time.Now()
	w := newWorld(t, seed, int(testkit.EnvNumber(t, "CHAOS_LANES", 10)))
	stop, done := make(chan struct{}), make(chan []sample)
	go func() { done <- w.watch(began, length, stop) }() // ends with stop
	w.torment(func(int) bool { return time.Since(began) > length }, perFault)
	tormented := time.Since(began)
	close(stop)
	samples := <-done
	drained := w.drain()
	w.settle()
	w.close()
	w.report(tormented, drained, w.verdict())
	requireNoGrowth(t, samples)
}

// sample is what the process takes at a moment, its own proxies and consumers included.
type sample struct{ rss, heap, goroutines, descriptors int }

func takeSample(t testing.TB) sample {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := sample{heap: int(m.HeapAlloc), goroutines: runtime.NumGoroutine(), descriptors: testkit.Descriptors()}
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		pages, err := strconv.Atoi(strings.Fields(string(text))[1])
		require.NoError(t, err)
		s.rss = pages * os.Getpagesize()
	}
	return s
}

// watch takes samples, and prints one every minute.
func (w *world) watch(began time.Time, length time.Duration, stop <-chan struct{}) (all []sample) {
	ticker := time.NewTicker(max(length/180, time.Second))
	defer ticker.Stop()
	minute := 0
	for {
		select {
		case <-ticker.C:
		case <-stop:
			return all
		}
		s := takeSample(w.t)
		all = append(all, s)
		if m := int(time.Since(began) / time.Minute); m > minute {
			minute = m
			w.print(minute, s)
		}
	}
}

func (w *world) print(minute int, s sample) {
	var sum tally
	for _, f := range w.flows() {
		for _, a := range f.accounts {
			sum.add(a)
		}
	}
	w.mu.Lock()
	wrong := w.wrong
	w.mu.Unlock()
	w.t.Logf("minute %d: %d messages published, %d handled, %d faults; %d duplicated, %d reordered, %d complaints; RSS %d MiB, heap %d MiB, %d goroutines, %d descriptors",
		minute, w.published(), sum.handled, w.happened(), sum.duplicated, sum.reordered, wrong,
		s.rss>>20, s.heap>>20, s.goroutines, s.descriptors)
}

// requireNoGrowth compares the medians of the first and the last third.
func requireNoGrowth(t *testing.T, samples []sample) {
	require.GreaterOrEqual(t, len(samples), 9, "too short to show anything")
	third := len(samples) / 3
	median := func(part []sample, of func(sample) int) int {
		values := make([]int, len(part))
		for i, s := range part {
			values[i] = of(s)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	for _, c := range []struct {
		name  string
		of    func(sample) int
		slack func(first int) int
	}{
		{"RSS", func(s sample) int { return s.rss }, func(n int) int { return n/4 + memoryGrowth }},
		{"heap", func(s sample) int { return s.heap }, func(n int) int { return n/4 + memoryGrowth }},
		{"goroutines", func(s sample) int { return s.goroutines }, func(int) int { return goroutineGrowth }},
		{"descriptors", func(s sample) int { return s.descriptors }, func(int) int { return descriptorGrowth }},
	} {
		first, last := median(samples[:third], c.of), median(samples[len(samples)-third:], c.of)
		t.Logf("%s: median %d in the first third, %d in the last", c.name, first, last)
		require.LessOrEqual(t, last, first+c.slack(first), "%s grows", c.name)
	}
}
