package outbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestDamage_FlippedBitsInSegments flips any bit of any segment between Close and Open: Open or Read report what is
// lost, and nothing else is lost. Only the last group of a log that was not closed can be dropped silently, as a torn
// one would.
func TestDamage_FlippedBitsInSegments(t *testing.T) {
	for _, closed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			l := newLife(t, "undisturbed")
			require.NoError(t, l.script())
			require.NoError(t, l.open())
			l.recovered()
			l.work()
			l.work()
			last := l.acc[l.keys[1]].last // was appended alone, and so is the last group
			disk := l.disk.next(1)
			if closed {
				require.NoError(t, l.close())
				disk, last = l.disk.next(1), 0
			}
			_ = l.close()
			rng, reported, refused := rand.New(rand.NewPCG(1, 1)), 0, 0
			n := 1500 / testenv.Stride(10)
			for range n {
				d := disk.next(1)
				names := d.names()
				name := names[rng.IntN(len(names))]
				at, bit := rng.IntN(len(d.files[name].durable)), byte(1)<<rng.IntN(8)
				d.flip(t, name, at, bit)
				what := fmt.Sprintf("closed %v, bit %x of byte %d of %s", closed, bit, at, name)
				o, err := Open(l.withoutCache(d))
				if err != nil {
					var damage *store.CorruptError
					require.ErrorAs(t, err, &damage, what)
					refused++
					continue
				}
				for _, k := range l.keys {
					reported += l.accounted(o, k, last, what)
				}
				_ = o.Close()
			}
			t.Logf("closed %v: %d flips, %d refused by Open, %d reported by Read", closed, n, refused, reported)
		})
	}
}

func (l *life) withoutCache(d *memDisk) Config {
	cfg := d.config()
	cfg.CacheBytes = -1
	return cfg
}

// accounted requires that each pending message of a stream is there, is reported as lost, or is the very last one.
func (l *life) accounted(o *Outbox, k store.Key, last uint64, what string) (reported int) {
	a, lost, got := l.acc[k], seqSet{}, map[uint64][]byte{}
	for from := uint64(1); ; {
		b, err := o.Read(k, from, 1000)
		var damage *store.CorruptError
		if errors.As(err, &damage) {
			require.Equal(l.t, k, damage.Key, what)
			require.GreaterOrEqual(l.t, damage.Through, from, what)
			lost.add(store.Range{First: damage.From, Last: damage.Through}, nil)
			from = damage.Through + 1
			reported++
			continue
		}
		require.NoError(l.t, err, what)
		if len(b.Messages) == 0 {
			break
		}
		require.GreaterOrEqual(l.t, b.First, from, what)
		for i, m := range b.Messages {
			got[b.First+uint64(i)] = m
		}
		from = b.Next()
	}
	for seq, m := range got {
		require.Equal(l.t, a.known[seq], m, "%s: sequence %d of %v", what, seq, k)
	}
	for seq := uint64(1); seq <= a.last; seq++ {
		_, ok := got[seq]
		gone := ok || lost.next(seq) != seq || a.settled.next(seq) != seq || k == l.keys[1] && seq == last
		require.True(l.t, gone, "%s: message %d of %v is missing without a report", what, seq, k)
	}
	return reported
}

// TestDamage_FlippedBitsInTheMetaStore flips bits of the meta store: Open reports that, or nothing is missing. Settled
// messages come back only if the outbox was not closed.
func TestDamage_FlippedBitsInTheMetaStore(t *testing.T) {
	for _, closed := range []bool{true, false} {
		cfg := Config{Dir: filepath.Join(testenv.Dir(t), "outbox"), SegmentBytes: 4 << 10, CacheBytes: -1}
		o := open(t, cfg)
		fill(t, o, orders, 1, 600, 10)
		require.NoError(t, o.Settle(orders, 10, store.Range{First: 20, Last: 30}))
		if closed {
			require.NoError(t, o.Close())
		}
		files := readDir(t, cfg.Dir)
		require.NoError(t, o.Close())
		good := files[metadb.FileName]
		rng, refused, n := rand.New(rand.NewPCG(2, 2)), 0, 400/testenv.Stride(10)
		for i := range n {
			bad := append([]byte(nil), good...)
			at := rng.IntN(len(bad) - 10)
			if i%2 == 0 {
				at = at/4096*4096 + rng.IntN(300)
			}
			bad[at] ^= 1 << rng.IntN(8)
			what := fmt.Sprintf("closed %v, byte %d, %q became %q", closed, at, good[max(at-10, 0):at+10], bad[at])
			writeDir(t, cfg.Dir, files)
			require.NoError(t, os.WriteFile(filepath.Join(cfg.Dir, metadb.FileName), bad, 0o600))
			o, err := Open(cfg)
			if err != nil {
				var damage *store.CorruptError
				require.ErrorAs(t, err, &damage, what)
				refused++
				continue
			}
			got, back := tryRead(o, orders), slices.Concat(sequence(1, 10), sequence(20, 30))
			if !closed {
				got = slices.DeleteFunc(got, func(n uint64) bool { return slices.Contains(back, n) })
			}
			require.True(t, slices.Equal(append(sequence(11, 19), sequence(31, 600)...), got), what)
			require.NoError(t, o.Close(), what)
		}
		t.Logf("closed %v: %d flips, %d refused", closed, n, refused)
	}
}

func readDir(t *testing.T, dir string) map[string][]byte {
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
	}
	return files
}

func writeDir(t *testing.T, dir string, files map[string][]byte) {
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.Mkdir(dir, 0o700))
	for name, data := range files {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
	}
}

// tryRead returns the sequences that can be read or are reported as lost.
func tryRead(o *Outbox, k store.Key) (seqs []uint64) {
	for from := uint64(1); ; {
		b, err := o.Read(k, from, 10000)
		var damage *store.CorruptError
		if errors.As(err, &damage) && damage.From >= from && damage.Through >= damage.From {
			seqs = append(seqs, sequence(damage.From, damage.Through)...)
			from = damage.Through + 1
			continue
		}
		if err != nil || len(b.Messages) == 0 {
			return seqs
		}
		seqs = append(seqs, sequence(b.First, b.Next()-1)...)
		from = b.Next()
	}
}
