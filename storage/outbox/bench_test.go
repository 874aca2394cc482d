package outbox

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// bareLog is the limit that the outbox is measured against: one growing file, one committer that gathers as ours does,
// and callers that wait for the fsync.
type bareLog struct {
	mu   sync.Mutex
	g    *bareGroup
	wake chan struct{}
	stop chan struct{}
	f    *os.File
	wg   sync.WaitGroup
}

type bareGroup struct {
	buf  []byte
	n    int
	done chan struct{}
}

func newBareLog(b *testing.B, dir string) *bareLog {
	f, err := os.Create(filepath.Join(dir, "bare"))
	require.NoError(b, err)
	l := &bareLog{f: f, wake: make(chan struct{}, 1), stop: make(chan struct{})}
	l.wg.Go(func() { l.run(b) }) // ends with close
	return l
}

func (l *bareLog) close() {
	close(l.stop)
	l.wg.Wait()
	_ = l.f.Close()
}

func (l *bareLog) append(m []byte) {
	l.mu.Lock()
	if l.g == nil {
		l.g = &bareGroup{done: make(chan struct{})}
	}
	g := l.g
	g.buf = append(binary.BigEndian.AppendUint32(g.buf, uint32(len(m))), m...)
	g.n++
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	<-g.done
}

func (l *bareLog) run(b *testing.B) {
	for {
		select {
		case <-l.wake:
		case <-l.stop:
			return
		}
		for gathered, tries := 0, 0; tries < 4; tries++ {
			l.mu.Lock()
			n := 0
			if l.g != nil {
				n = l.g.n
			}
			l.mu.Unlock()
			if n == gathered {
				break
			}
			gathered = n
			runtime.Gosched()
		}
		l.mu.Lock()
		g := l.g
		l.g = nil
		l.mu.Unlock()
		if g == nil {
			continue
		}
		if _, err := l.f.Write(g.buf); err != nil {
			b.Error(err)
		}
		if err := syncData(l.f); err != nil {
			b.Error(err)
		}
		close(g.done)
	}
}

// rate lets goroutines append one message at a time for d.
func rate(goroutines int, d time.Duration, appendOne func(g int, m []byte)) float64 {
	var total atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for g := range goroutines {
		wg.Go(func() {
			m := make([]byte, 110)
			for n := 0; ; n++ {
				if n%8 == 0 && time.Since(start) > d {
					return
				}
				appendOne(g, m)
				total.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(total.Load()) / time.Since(start).Seconds()
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// BenchmarkAppend measures durable appends of 110 bytes beside the bare limit, in turns; an iteration is a turn of 300
// ms for each. ratio is ours over bare. Run it with -benchtime=9x or so.
func BenchmarkAppend(b *testing.B) {
	for _, streams := range []int{1, 16} {
		for _, goroutines := range []int{1, 16, 128} {
			if streams > goroutines {
				continue
			}
			b.Run(fmt.Sprintf("goroutines=%d/streams=%d", goroutines, streams), func(b *testing.B) {
				benchmarkAppend(b, goroutines, streams)
			})
		}
	}
}

func benchmarkAppend(b *testing.B, goroutines, streams int) {
	keys := make([]store.Key, streams)
	for i := range keys {
		keys[i] = store.Key{Destination: fmt.Sprintf("10.0.0.%d:5031", i), Topic: "orders"}
	}
	var bare, ours, ratio []float64
	for b.Loop() {
		dir := b.TempDir()
		l := newBareLog(b, dir)
		limit := rate(goroutines, 300*time.Millisecond, func(_ int, m []byte) { l.append(m) })
		l.close()
		o, err := Open(Config{Dir: filepath.Join(dir, "outbox")})
		require.NoError(b, err)
		got := rate(goroutines, 300*time.Millisecond, func(g int, m []byte) {
			if _, err := o.Append(bg, keys[g%streams], m); err != nil {
				b.Error(err)
			}
		})
		require.NoError(b, o.Close())
		require.NoError(b, os.RemoveAll(dir))
		bare, ours, ratio = append(bare, limit), append(ours, got), append(ratio, got/limit)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(bare), "bare-msgs/s")
	b.ReportMetric(median(ours), "msgs/s")
	b.ReportMetric(median(ratio), "ratio")
}

// BenchmarkDeliver appends with 128 goroutines while one reader per stream reads and settles all of it.
func BenchmarkDeliver(b *testing.B) {
	for b.Loop() {
		o, err := Open(Config{Dir: filepath.Join(b.TempDir(), "outbox")})
		require.NoError(b, err)
		var wg sync.WaitGroup
		keys := make([]store.Key, 8)
		for i := range keys {
			keys[i] = store.Key{Destination: fmt.Sprintf("10.0.0.%d:5031", i)}
			_, err := o.Append(bg, keys[i], nil)
			require.NoError(b, err)
			wg.Go(func() { deliver(o, keys[i]) }) // ends with Close
		}
		got := rate(128, time.Second, func(g int, m []byte) { _, _ = o.Append(bg, keys[g%8], m) })
		require.NoError(b, o.Drain(bg))
		require.NoError(b, o.Close())
		wg.Wait()
		b.ReportMetric(got, "msgs/s")
	}
}

func deliver(o *Outbox, k store.Key) {
	for next := uint64(1); ; {
		batch, err := o.Read(k, next, 64<<10)
		if err != nil {
			return
		}
		if next = batch.Next(); len(batch.Messages) > 0 {
			_ = o.Settle(k, next-1)
			continue
		}
		ready, err := o.Readable(k, next)
		if err != nil {
			return
		}
		<-ready
	}
}

// BenchmarkRecovery opens an outbox that holds a million pending messages of 110 bytes in ten streams until the first
// can be read, and reads them all.
func BenchmarkRecovery(b *testing.B) {
	for _, batch := range []int{1000, 10} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			dir := filepath.Join(b.TempDir(), "outbox")
			keys := pendingMessages(b, dir, 1_000_000, batch)
			var opened, read []float64
			for b.Loop() {
				start := time.Now()
				o, err := Open(Config{Dir: dir})
				require.NoError(b, err)
				_, err = o.Read(keys[0], 1, 64<<10)
				require.NoError(b, err)
				opened = append(opened, time.Since(start).Seconds())
				start = time.Now()
				total := 0
				for _, k := range keys {
					total += countAll(b, o, k)
				}
				require.Equal(b, 1_000_000, total)
				read = append(read, float64(total)/time.Since(start).Seconds())
				require.NoError(b, o.Close())
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(opened)*1000, "ms-to-first")
			b.ReportMetric(median(read), "reads/s")
		})
	}
}

// pendingMessages fills an outbox and leaves it as a crash would: without what Close saves.
func pendingMessages(tb testing.TB, dir string, count, batch int) (keys []store.Key) {
	for i := range 10 {
		keys = append(keys, store.Key{Destination: fmt.Sprintf("10.0.0.%d:5031", i), Topic: "orders"})
	}
	o, err := Open(Config{Dir: dir})
	require.NoError(tb, err)
	messages := make([][]byte, batch)
	for i := range messages {
		messages[i] = make([]byte, 110)
	}
	var wg sync.WaitGroup
	for _, k := range keys {
		wg.Go(func() {
			for n := 0; n < count/len(keys); n += batch {
				if _, err := o.Append(bg, k, messages...); err != nil {
					tb.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	abandon(o)
	return keys
}

// abandon ends the outbox's goroutine and frees its lock, and saves nothing.
func abandon(o *Outbox) {
	_ = o.fail(errPowerCut)
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.meta = metaStore{deadMeta{o.meta.MetaStore}}
	o.log.meta = o.meta
	_ = o.Close()
}

func countAll(tb testing.TB, o *Outbox, k store.Key) (n int) {
	for next := uint64(1); ; {
		batch, err := o.Read(k, next, 256<<10)
		require.NoError(tb, err)
		if len(batch.Messages) == 0 {
			return n
		}
		n += len(batch.Messages)
		next = batch.Next()
	}
}
