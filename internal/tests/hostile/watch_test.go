package hostile

import (
	"fmt"
	"os"
	"runtime"
	"runtime/metrics"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/assert"
)

// maxLine bounds what one line of a log may repeat of a peer's text, fields and all.
const maxLine = 1200

// nbsp is what package proto has in its errors now and then.
const nbsp = '\u00a0'

// logWatch counts lines, and looks for such as a peer has broken or made long.
type logWatch struct {
	mu    sync.Mutex
	lines map[string]int
	bad   []string
}

func newLogWatch() *logWatch { return &logWatch{lines: map[string]int{}} }

func (w *logWatch) line(level, msg string, err error, fields watermill.LogFields) {
	var all strings.Builder
	all.WriteString(msg)
	if err != nil {
		all.WriteString(" " + err.Error())
	}
	for k, v := range fields {
		fmt.Fprintf(&all, " %s=%v", k, v)
	}
	text := all.String()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines[level+" "+msg]++
	broken := strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && r != nbsp })
	if (broken || len(text) > maxLine) && len(w.bad) < 5 {
		w.bad = append(w.bad, fmt.Sprintf("%d bytes: %.300q", len(text), text))
	}
}

func (w *logWatch) Error(msg string, err error, f watermill.LogFields) { w.line("ERROR", msg, err, f) }
func (w *logWatch) Info(msg string, f watermill.LogFields)             { w.line("INFO", msg, nil, f) }
func (*logWatch) Debug(string, watermill.LogFields)                    {}
func (*logWatch) Trace(string, watermill.LogFields)                    {}

func (w *logWatch) With(watermill.LogFields) watermill.LoggerAdapter { return w }

func (w *logWatch) total() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.lines {
		n += k
	}
	return n
}

func (w *logWatch) summary() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for msg, n := range w.lines {
		out = append(out, fmt.Sprintf("%6d %s", n, msg))
	}
	sort.Sort(sort.Reverse(sort.StringSlice(out)))
	return strings.Join(out, "\n")
}

// burden is what a process carries.
type burden struct {
	heap        int // bytes that the last collection found alive
	goroutines  int
	descriptors int
}

func weigh() (b burden) {
	runtime.GC()
	runtime.GC() // what finalizers and pools held
	b.heap, b.goroutines = live(), runtime.NumGoroutine()
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		b.descriptors = len(entries)
	}
	return b
}

// live is the heap as the last collection left it.
func live() int {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return int(sample[0].Value.Uint64())
}

// peak watches the heap until stop is closed, and returns the most of it.
func peak(stop <-chan struct{}) <-chan int {
	out := make(chan int, 1)
	go func() { // ends when stop is closed
		most := 0
		for {
			select {
			case <-time.After(50 * time.Millisecond):
				most = max(most, live())
			case <-stop:
				out <- most
				return
			}
		}
	}()
	return out
}

// settles waits until the process carries little more than before.
func settles(t *testing.T, before burden, heap int) {
	t.Helper()
	assert.Eventually(t, func() bool {
		now := weigh()
		return now.heap <= before.heap+heap && now.goroutines <= before.goroutines+5 && now.descriptors <= before.descriptors+5
	}, patience, 100*time.Millisecond)
	t.Logf("before %+v, after %+v", before, weigh())
}
