package outbox

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
	"github.com/buffstreams/watermill-buffstreams/store"
)

var crashes = flag.Int("outbox.crashes", 300, "recoveries that TestCrashes_AtRandom checks")

// account is what a careful caller knows of a stream.
type account struct {
	mu        sync.Mutex
	confirmed map[uint64][]byte
	attempted [][]byte // unconfirmed: may be there, or not
	settled   seqSet
}

// world drives an outbox on a disk that loses power, and keeps the accounts.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	disk  *memDisk
	o     *Outbox
	id    [16]byte
	epoch uint64
	keys  []store.Key
	acc   map[store.Key]*account
	n     int
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), disk: newMemDisk(seed), acc: map[store.Key]*account{},
		keys: []store.Key{{Destination: "a", Topic: "stuck"}, {Destination: "b", Topic: "1"}, {Destination: "b", Topic: "2"}, {Destination: "c"}},
	}
	for _, k := range w.keys {
		w.acc[k] = &account{confirmed: map[uint64][]byte{}}
	}
	return w
}

// open opens the outbox. It returns false if the power failed.
func (w *world) open() bool {
	cfg := w.disk.config()
	cfg.CacheBytes = []int{-1, 2000, 1 << 20}[w.rng.IntN(3)]
	o, err := Open(cfg)
	if err != nil {
		require.ErrorIs(w.t, err, errPowerCut)
		return false
	}
	w.o = o
	require.Greater(w.t, o.Epoch(), w.epoch, "the epoch grows")
	w.epoch = o.Epoch()
	if w.id != [16]byte{} {
		require.Equal(w.t, w.id, o.ID())
	}
	w.id = o.ID()
	return true
}

// check compares what the outbox holds with the accounts, and enters unconfirmed messages that are there. It returns
// early when the power fails.
func (w *world) check() {
	for _, k := range w.keys {
		a := w.acc[k]
		got := map[uint64][]byte{}
		for from := uint64(1); streamID(w.o, k) != 0; {
			b, err := w.o.Read(k, from, w.rng.IntN(4000))
			if errors.Is(err, errPowerCut) {
				return
			}
			require.NoError(w.t, err)
			if len(b.Messages) == 0 {
				break
			}
			for i, m := range b.Messages {
				got[b.First+uint64(i)] = m
			}
			from = b.Next()
		}
		for seq, m := range a.confirmed {
			if g, ok := got[seq]; ok {
				require.Equal(w.t, m, g, "sequence %d of %v is another message", seq, k)
			} else {
				require.NotEqual(w.t, seq, a.settled.next(seq), "confirmed message %d of %v is lost", seq, k)
			}
		}
		for seq, m := range got {
			if _, ok := a.confirmed[seq]; ok {
				continue
			}
			known := false
			for _, u := range a.attempted {
				known = known || bytes.Equal(u, m)
			}
			require.True(w.t, known, "sequence %d of %v was never appended", seq, k)
			a.confirmed[seq] = m
		}
		a.attempted = nil
	}
	checkIndex(w.t, w.o)
}

// checkIndex verifies what must hold between streams, extents and segments. No append may be under way.
func checkIndex(t *testing.T, o *Outbox) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failure != nil {
		return
	}
	type sums struct {
		live  int
		bytes int64
	}
	segments, total := map[*segmentFile]sums{}, int64(0)
	present := map[*segmentFile]bool{}
	for _, f := range o.index.segments {
		present[f] = true
	}
	for _, s := range o.index.byID {
		live, cost, last := uint64(0), int64(0), s.settled.through
		for _, x := range s.extents {
			require.True(t, x.last > last && (x.first > last || last == s.settled.through), "extents of %v overlap", s.key)
			require.NotZero(t, x.pending)
			require.True(t, present[x.segment], "%v counts in a segment that is gone", s.key)
			require.Equal(t, x.pending, s.settled.missing(store.Range{First: x.first, Last: x.last}))
			live, cost, last = live+x.pending, cost+x.pendingBytes, x.last
			sum := segments[x.segment]
			segments[x.segment] = sums{sum.live + 1, sum.bytes + x.pendingBytes}
		}
		require.Equal(t, s.pending(), live, "pending of %v", s.key)
		require.Equal(t, s.bytes, cost, "bytes of %v", s.key)
		total += cost
	}
	require.Equal(t, total, o.index.bytes)
	for _, f := range o.index.segments {
		require.Equal(t, segments[f], sums{f.pendingExtents, f.pendingBytes}, f.name)
	}
}

// work does the given number of random actions, and stops when the power fails.
func (w *world) work(actions int) (powered bool) {
	for range actions {
		k := w.keys[w.rng.IntN(len(w.keys))]
		switch p := w.rng.IntN(20); {
		case p < 14:
			powered = w.append(1 + w.rng.IntN(3))
		case p < 17:
			powered = w.settle(k)
		case p < 19:
			w.check()
			powered = true
		default:
			if err := w.o.Close(); err != nil {
				require.ErrorIs(w.t, err, errPowerCut)
				return false
			}
			if powered = w.open(); powered {
				w.check()
			}
		}
		if !powered {
			return false
		}
	}
	return true
}

// append lets some goroutines append a batch each.
func (w *world) append(goroutines int) bool {
	var wg sync.WaitGroup
	ok := make([]bool, goroutines)
	for g := range goroutines {
		k := w.keys[w.rng.IntN(len(w.keys))]
		if w.rng.IntN(4) != 0 && k == w.keys[0] {
			k = w.keys[1]
		}
		var batch [][]byte
		for range 1 + w.rng.IntN(4) {
			w.n++
			m := fmt.Appendf(nil, "%v %d ", k, w.n)
			batch = append(batch, append(m, make([]byte, w.rng.IntN(300))...))
		}
		wg.Go(func() { ok[g] = w.acc[k].append(w.t, w.o, k, batch) })
	}
	wg.Wait()
	for _, ok := range ok {
		if !ok {
			return false
		}
	}
	return true
}

func (a *account) append(t *testing.T, o *Outbox, k store.Key, batch [][]byte) bool {
	first, err := o.Append(bg, k, batch...)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		if !errors.Is(err, errPowerCut) {
			t.Errorf("append: %v", err)
		}
		a.attempted = append(a.attempted, batch...)
		return false
	}
	for i, m := range batch {
		seq := first + uint64(i)
		if old, ok := a.confirmed[seq]; ok {
			t.Errorf("sequence %d of %v was given out twice: %.40q, %.40q", seq, k, old, m)
		}
		a.confirmed[seq] = m
	}
	return true
}

func (w *world) settle(k store.Key) bool {
	a := w.acc[k]
	last := uint64(len(a.confirmed))
	if last == 0 || streamID(w.o, k) == 0 {
		return true
	}
	through := uint64(0)
	if k != w.keys[0] && w.rng.IntN(2) == 0 {
		through = last - w.rng.Uint64N(min(last, 20))
	}
	first := 1 + w.rng.Uint64N(last)
	r := store.Range{First: first, Last: min(last, first+w.rng.Uint64N(10))}
	a.settled.add(store.Range{First: 1, Last: through}, nil)
	a.settled.add(r, nil)
	err := w.o.Settle(k, through, r)
	if err != nil {
		require.ErrorIs(w.t, err, errPowerCut)
	}
	return err == nil
}

// crash cuts the power, and continues with what the disk kept.
func (w *world) crash(cutAt int) {
	if w.o != nil {
		w.disk.mu.Lock()
		w.disk.cut = true
		w.disk.mu.Unlock()
		_ = w.o.Close()
		w.o = nil
	}
	w.disk = w.disk.restart(w.rng.Uint64())
	w.disk.cutAt = cutAt
}

// live opens, checks and works until power fails.
func (w *world) live(actions int) {
	if w.open() {
		w.check()
		w.work(actions)
	}
}

// TestCrashes_AtEveryOperation cuts the power at each operation of one life once: opening, appending, rotating,
// relocating, removing, closing.
func TestCrashes_AtEveryOperation(t *testing.T) {
	const actions = 60
	w := newWorld(t, 1)
	w.live(actions)
	ops := w.disk.ops
	w.crash(0)
	t.Logf("%d operations", ops)
	for cut := 1; cut <= ops; cut += testenv.Stride(7) {
		w := newWorld(t, 1)
		w.disk.cutAt = cut
		w.live(actions)
		w.crash(0)
		require.True(t, w.open())
		w.check()
		w.crash(0)
	}
}

// TestCrashes_AtRandom lets one outbox live through many crashes, so that the remains of one meet the next.
func TestCrashes_AtRandom(t *testing.T) {
	left := *crashes / testenv.Stride(5)
	for seed := uint64(1); left > 0 && !t.Failed(); seed++ {
		w := newWorld(t, seed)
		for range min(left, 60) {
			w.crash(1 + w.rng.IntN(120))
			w.live(60)
			left--
		}
		w.crash(0)
		require.True(t, w.open())
		w.check()
		w.crash(0)
	}
}
