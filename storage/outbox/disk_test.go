package outbox

import (
	"errors"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
)

var errPowerCut = errors.New("power cut")

// memDisk is a directory, as the operating system offers it to diskFS, whose power can be cut and which can fail. It
// keeps apart what a process sees and what would survive: bytes that no fsync covered, and names that no fsync of the
// directory covered, survive in any combination.
type memDisk struct {
	mu      sync.Mutex
	rng     *rand.Rand
	files   map[string]*memFile // as processes see them
	durable map[string]*memFile // whose names survive
	meta    memMeta             // as processes see it
	metaRaw memMeta             // as it survives

	ops   int // that change something
	kinds []opKind
	reads int
	fault fault
	cutAt int  // the operation during which the power fails, 0 for none
	cut   bool // the power failed
	open  int  // files
	syncs int

	onSync func() error // called without mu before data is durable
	gate   func()       // called without mu at each fsync
}

type memMeta struct {
	state  types.PersistentState
	stable map[string][]byte
}

func (m memMeta) clone() memMeta {
	n := memMeta{stable: map[string][]byte{}}
	n.state = types.PersistentState{NextSegmentID: m.state.NextSegmentID, Segments: slices.Clone(m.state.Segments)}
	for k, v := range m.stable {
		n.stable[k] = slices.Clone(v)
	}
	return n
}

// memFile is a file's durable bytes, those that a process sees, and the writes that no fsync covered yet.
type memFile struct {
	durable, current []byte
	pending          []memWrite
}

// memWrite is a write, or, without data, the file's growing to offset.
type memWrite struct {
	offset int64
	data   []byte
}

func (f *memFile) clone() *memFile {
	return &memFile{durable: slices.Clone(f.durable), current: slices.Clone(f.current), pending: slices.Clone(f.pending)}
}

func newMemDisk(seed uint64) *memDisk {
	return &memDisk{
		rng: rand.New(rand.NewPCG(seed, 1)), files: map[string]*memFile{}, durable: map[string]*memFile{},
		meta: memMeta{stable: map[string][]byte{}}, metaRaw: memMeta{stable: map[string][]byte{}},
	}
}

// config returns a Config on this disk with small segments.
func (d *memDisk) config() Config {
	return Config{Dir: "mem", SegmentBytes: 4 << 10, open: func(string) (storage, error) {
		return storage{fs: diskFS{d}, meta: d}, nil
	}}
}

// configWith is cfg on this disk.
func (d *memDisk) configWith(cfg Config) Config {
	cfg.open = d.config().open
	return cfg
}

// coin decides what depends on chance.
func (d *memDisk) coin() bool { return d.rng.IntN(2) == 0 }

// next returns the disk that the next process finds after this one was killed: with everything, durable or not.
func (d *memDisk) next(seed uint64) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := newMemDisk(seed)
	clones := map[*memFile]*memFile{}
	clone := func(files map[string]*memFile) map[string]*memFile {
		names := map[string]*memFile{}
		for name, f := range files {
			if clones[f] == nil {
				clones[f] = f.clone()
			}
			names[name] = clones[f]
		}
		return names
	}
	n.files, n.durable = clone(d.files), clone(d.durable)
	n.meta, n.metaRaw = d.meta.clone(), d.metaRaw.clone()
	return n
}

// restart returns the disk that the next process finds after a power cut.
func (d *memDisk) restart(seed uint64) *memDisk {
	n := d.next(seed)
	d.mu.Lock()
	defer d.mu.Unlock()
	all := maps.Clone(n.files)
	maps.Copy(all, n.durable)
	kept := map[string]*memFile{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := n.durable[name]
		if n.files[name] != f && d.coin() {
			f = n.files[name]
		}
		if f == nil {
			continue
		}
		data := f.durable
		for _, w := range f.pending {
			data = d.tear(data, w)
		}
		kept[name] = &memFile{durable: data, current: slices.Clone(data)}
	}
	n.files, n.durable = kept, maps.Clone(kept)
	n.meta = n.metaRaw.clone()
	return n
}

// tear lets any part of a write survive.
func (d *memDisk) tear(data []byte, w memWrite) []byte {
	if w.data != nil {
		return testenv.Tear(d.rng, data, w.data, w.offset)
	}
	if d.coin() {
		data = testenv.WriteAt(data, nil, w.offset)
	}
	return data
}

// bytes returns the space that segments take.
func (d *memDisk) bytes() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		n += len(f.current)
	}
	return n
}

// damage flips bits of a byte that is durable.
func (d *memDisk) damage(t testing.TB, name string, offset int) { d.flip(t, name, offset, 0x55) }

func (d *memDisk) flip(t testing.TB, name string, offset int, bits byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	require.NotNil(t, f)
	f.durable[offset] ^= bits
	f.current[offset] ^= bits
}

// names lists the segments, oldest first.
func (d *memDisk) names() []string {
	names, _ := d.List("")
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".wal") })
}

func base(path string) string { return filepath.Base(path) }

// noSpace and ioError are what the faults return.
const (
	noSpace = syscall.ENOSPC
	ioError = syscall.EIO
)
