package dedupe

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
	"github.com/buffstreams/watermill-buffstreams/store"
)

var thorough = flag.Int("dedupe.rounds", 1, "images of each power cut that TestFaults_AtEveryWrite looks at")

type states = map[store.StreamID]store.StreamState

// life drives a store on a disk with a fault.
type life struct {
	t          testing.TB
	what, dir  string
	s          *Store
	d          *disk
	confirmed  states
	attempted  states // after a change that failed: this, or confirmed
	n          uint64
	recoveries int
}

func newLife(t testing.TB, what, dir string) *life {
	_ = os.Remove(filepath.Join(dir, "dedupe"))
	return &life{t: t, what: what, dir: dir, confirmed: states{}}
}

// open opens the file in the directory, and compares its contents with what was confirmed.
func (l *life) open(seed uint64) {
	s, err := Open(filepath.Join(l.dir, "dedupe"))
	require.NoError(l.t, err, l.what)
	l.s, l.d = s, attach(l.t, s, seed)
	l.recoveries++
	got := l.contents()
	if l.attempted != nil && !equal(l.confirmed, got) {
		l.confirmed = l.attempted // and must stay so
	}
	l.attempted = nil
	require.True(l.t, equal(l.confirmed, got), "%s: %d records, not the %d that were saved, or others", l.what, len(got), len(l.confirmed))
}

func equal(a, b states) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func (l *life) contents() states {
	got := states{}
	for n := range uint64(12) {
		for _, id := range []store.StreamID{name(n, "a"), name(n, "b")} {
			state, ok, err := l.s.Load(id)
			require.NoError(l.t, err, l.what)
			if ok {
				got[id] = state
			}
		}
	}
	return got
}

// name names a stream by a long topic, so that few fit a page.
func name(n uint64, topic string) store.StreamID {
	return store.StreamID{Publisher: [16]byte{byte(n % 3)}, Stream: n, Topic: topic + strings.Repeat("x", 300)}
}

// save moves some streams on.
func (l *life) save(ids ...store.StreamID) error {
	change, all := states{}, maps.Clone(l.confirmed)
	for _, id := range ids {
		l.n++
		change[id] = store.StreamState{Epoch: 1 + l.n/10, Secret: [16]byte{byte(l.n)},
			Settled: []store.Range{{First: 1, Last: l.n}, {First: l.n + 2, Last: l.n * 300}}}
	}
	maps.Copy(all, change)
	return l.did(all, l.s.Save(change))
}

func (l *life) forget(id store.StreamID) error {
	all := maps.Clone(l.confirmed)
	delete(all, id)
	return l.did(all, l.s.Forget(id))
}

func (l *life) did(all states, err error) error {
	if err != nil {
		l.attempted = all
		return err
	}
	l.confirmed = all
	l.d.synced()
	return nil
}

func (l *life) script() error {
	for n := range uint64(12) {
		if err := l.save(name(n, "a"), name(n/2, "b"), name(n/3, "a")); err != nil {
			return err
		}
		if n%4 == 3 {
			if err := l.forget(name(n-2, "a")); err != nil {
				return err
			}
		}
	}
	return l.s.Close()
}

// runFault runs the script with a fault, and recovers three times: after the fault, after a power cut that follows, and
// after an orderly end.
func runFault(t testing.TB, dir string, f fault, killed bool, seed uint64) int {
	l := newLife(t, fmt.Sprintf("%+v, killed %v, seed %d", f, killed, seed), dir)
	l.open(seed)
	l.d.fault = f
	err := l.script()
	require.Error(t, err, l.what)
	l.checkFailed(f)
	image := l.d.image()
	if killed { // what the system shows, durable or not
		image = read(t, l.d.path)
	}
	_ = l.s.Close()
	place(t, dir, image)
	l.open(seed + 1)
	require.NoError(t, l.save(name(1, "a"), name(7, "b")), l.what)
	l.d.fault = fault{op: l.d.ops + 1 + int(seed%4), cut: true, amount: part}
	err = l.save(name(2, "a"))
	if err == nil {
		err = l.save(name(3, "b"))
	}
	require.Error(t, err, l.what)
	image = l.d.image()
	_ = l.s.Close()
	place(t, dir, image)
	l.open(seed + 2)
	require.NoError(t, l.save(name(4, "a")), l.what)
	require.NoError(t, l.s.Close(), l.what)
	l.open(seed + 3)
	require.NoError(t, l.s.Close(), l.what)
	return l.recoveries
}

// checkFailed checks that a store which failed returns the reason, and does not touch the file any more.
func (l *life) checkFailed(f fault) {
	l.d.restore()
	ops, attempted := l.d.ops, l.attempted
	require.ErrorIs(l.t, l.s.Save(states{name(1, "a"): {}}), ErrFailed, l.what)
	require.ErrorIs(l.t, l.s.Forget(name(1, "a")), ErrFailed, l.what)
	_, _, err := l.s.Load(name(1, "a"))
	require.ErrorIs(l.t, err, ErrFailed, l.what)
	if f.err != 0 {
		require.ErrorIs(l.t, err, f.err, l.what)
	}
	require.Equal(l.t, ops, l.d.ops, "%s: it must not try again", l.what)
	l.attempted = attempted
}

func TestFaults_AtEveryWrite(t *testing.T) {
	dir := testenv.Dir(t)
	l := newLife(t, "undisturbed", dir)
	l.open(1)
	require.NoError(t, l.script())
	ops := l.d.ops - 3 // those of Close
	stride, recoveries := testenv.Stride(7), 0
	kinds := []fault{
		{cut: true, amount: none}, {cut: true, amount: part}, {cut: true, amount: whole},
		{err: syscall.EIO, amount: part}, {err: syscall.ENOSPC, amount: none}, {sync: true},
	}
	for op := 1; op <= ops; op += stride {
		for i, f := range kinds {
			f.op = op
			for round := range *thorough {
				for _, killed := range []bool{false, true} {
					recoveries += runFault(t, dir, f, killed, uint64(op*1000+10*i+round))
				}
			}
		}
	}
	t.Logf("%d writes, %d recoveries", ops, recoveries)
}

// TestDamage_FlippedBits flips bits of the file between Close and Open: Open reports that, or nothing that was saved is
// missing. It tries all bits of the page headers and of both meta pages, and others at random.
func TestDamage_FlippedBits(t *testing.T) {
	dir := testenv.Dir(t)
	l := newLife(t, "undisturbed", dir)
	l.open(1)
	require.NoError(t, l.script())
	good := read(t, l.d.path)
	var bits []int
	for page := 0; page < len(good); page += pageSize() {
		head := 16
		if page < 2*pageSize() {
			head = 80
		}
		for bit := range 8 * head {
			bits = append(bits, 8*page+bit)
		}
	}
	rng, refused, stride := rand.New(rand.NewPCG(1, 1)), 0, testenv.Stride(23)
	for range 600 * *thorough {
		bits = append(bits, rng.IntN(8*len(good)))
	}
	for n := 0; n < len(bits); n += stride {
		at, mask := bits[n]/8, byte(1)<<(bits[n]%8)
		image := append([]byte(nil), good...)
		image[at] ^= mask
		l.what = fmt.Sprintf("byte %d, %x became %x", at, good[at], image[at])
		path := place(t, dir, image)
		s, err := Open(path)
		if err != nil {
			var corrupt *CorruptError
			require.ErrorAs(t, err, &corrupt, l.what)
			require.Equal(t, path, corrupt.Path)
			refused++
			continue
		}
		require.NoError(t, s.Close())
		l.open(1)
		confirmed := l.confirmed
		require.NoError(t, l.save(name(1, "a"), name(2, "b")), l.what)
		require.NoError(t, l.s.Close(), l.what)
		l.open(1)
		require.NoError(t, l.s.Close(), l.what)
		l.confirmed = confirmed
	}
	t.Logf("%d flips, %d refused, %d recoveries", len(bits)/stride, refused, l.recoveries)
}

func pageSize() int { return os.Getpagesize() }

func TestDamage_ATruncatedFileIsRefused(t *testing.T) {
	dir := testenv.Dir(t)
	l := newLife(t, "undisturbed", dir)
	l.open(1)
	require.NoError(t, l.script())
	good := read(t, l.d.path)
	whole := 0
	for size := 0; size < len(good); size += 512 {
		s, err := Open(place(t, dir, good[:size]))
		if err == nil { // bbolt grows the file ahead of its pages
			whole++
			l.s = s
			require.Equal(t, l.confirmed, l.contents(), "%d bytes", size)
			require.NoError(t, s.Close())
			continue
		}
		var corrupt *CorruptError
		require.ErrorAs(t, err, &corrupt, "%d bytes", size)
	}
	require.Less(t, whole, len(good)/512)
	t.Log(whole)
}
