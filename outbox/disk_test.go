package outbox

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft-wal/types"
	"github.com/stretchr/testify/require"
)

var errPowerCut = errors.New("power cut")

const sectorSize = 512

// memDisk is a directory whose power can be cut. It keeps apart what was
// written and what would survive; every write, fsync, create, delete and meta
// commit is an operation that can be the last, or half of one.
type memDisk struct {
	mu    sync.Mutex
	rng   *rand.Rand
	files map[string]*memFile
	meta  memMeta

	ops    int
	cutAt  int  // the operation that the power goes in, 0 for none
	cut    bool // it went
	syncs  int
	onSync func() error // called without mu before data is durable
	gate   func()       // called without mu at each fsync
}

type memMeta struct {
	state  types.PersistentState
	stable map[string][]byte
}

// memFile is a file's durable bytes and the writes that no fsync covered yet.
type memFile struct {
	durable, current []byte
	pending          []memWrite
	named            bool // its name survives
}

type memWrite struct {
	offset int64
	data   []byte
}

func newMemDisk(seed uint64) *memDisk {
	return &memDisk{
		rng: rand.New(rand.NewPCG(seed, 1)), files: map[string]*memFile{},
		meta: memMeta{stable: map[string][]byte{}},
	}
}

// config returns a Config on this disk with small segments.
func (d *memDisk) config() Config {
	return Config{Dir: "mem", SegmentBytes: 4 << 10, open: func(string) (storage, error) {
		return storage{fs: d, meta: d}, nil
	}}
}

// step counts an operation. before says whether it must be left undone; after
// an operation that ran, power may be gone all the same.
func (d *memDisk) step() (half bool, err error) {
	if d.cut {
		return false, errPowerCut
	}
	d.ops++
	if d.ops == d.cutAt {
		d.cut = true
		return true, errPowerCut
	}
	return false, nil
}

// restart is what the next process finds: of each write that was not synced
// any of its sectors, in any combination.
func (d *memDisk) restart(seed uint64) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := newMemDisk(seed)
	names := make([]string, 0, len(d.files))
	for name := range d.files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f := d.files[name]
		if !f.named && d.rng.IntN(2) == 0 {
			continue
		}
		data := slices.Clone(f.durable)
		for _, w := range f.pending {
			data = d.tear(data, w)
		}
		n.files[name] = &memFile{durable: data, current: slices.Clone(data), named: true}
	}
	n.meta.state = types.PersistentState{NextSegmentID: d.meta.state.NextSegmentID, Segments: slices.Clone(d.meta.state.Segments)}
	for k, v := range d.meta.stable {
		n.meta.stable[k] = slices.Clone(v)
	}
	return n
}

func (d *memDisk) tear(data []byte, w memWrite) []byte {
	mode := d.rng.IntN(4) // all, nothing, a prefix, any sectors
	prefix := d.rng.IntN(len(w.data) + 1)
	for i := 0; i < len(w.data); {
		end := min(len(w.data), i+sectorSize-int((w.offset+int64(i))%sectorSize))
		if mode == 0 || mode == 2 && end <= prefix || mode == 3 && d.rng.IntN(2) == 0 {
			data = writeAt(data, w.data[i:end], w.offset+int64(i))
		}
		i = end
	}
	return data
}

func writeAt(data, p []byte, offset int64) []byte {
	if need := int(offset) + len(p); need > len(data) {
		data = append(data, make([]byte, need-len(data))...)
	}
	copy(data[offset:], p)
	return data
}

func (d *memDisk) ListDir(string) (names []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func (d *memDisk) Create(_, name string, size uint64) (types.WritableFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	half, err := d.step()
	if err != nil && !half {
		return nil, err
	}
	f := &memFile{durable: make([]byte, size), current: make([]byte, size)}
	d.files[name] = f
	return &memHandle{d, f}, err
}

func (d *memDisk) Delete(_, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	half, err := d.step()
	if err == nil || half && d.rng.IntN(2) == 0 {
		delete(d.files, name)
	}
	return err
}

func (d *memDisk) open(name string) (*memHandle, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		return nil, os.ErrNotExist
	}
	return &memHandle{d, f}, nil
}

func (d *memDisk) OpenReader(_, name string) (types.ReadableFile, error) {
	h, err := d.open(name)
	if err != nil {
		return nil, err
	}
	return h, nil
}

func (d *memDisk) OpenWriter(_, name string) (types.WritableFile, error) {
	h, err := d.open(name)
	if err != nil {
		return nil, err
	}
	return h, nil
}

// bytes is the space that segments take.
func (d *memDisk) bytes() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.files {
		n += len(f.current)
	}
	return n
}

// damage flips a byte that is durable.
func (d *memDisk) damage(t testing.TB, name string, offset int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	require.NotNil(t, f)
	f.durable[offset] ^= 0x55
	f.current[offset] ^= 0x55
}

// names lists the segments, oldest first.
func (d *memDisk) names() []string {
	names, _ := d.ListDir("")
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, ".wal") })
}

type memHandle struct {
	d *memDisk
	f *memFile
}

func (h *memHandle) ReadAt(p []byte, offset int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if offset >= int64(len(h.f.current)) {
		return 0, io.EOF
	}
	n := copy(p, h.f.current[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *memHandle) WriteAt(p []byte, offset int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	half, err := h.d.step()
	if err == nil || half {
		h.f.current = writeAt(h.f.current, p, offset)
		h.f.pending = append(h.f.pending, memWrite{offset, slices.Clone(p)})
	}
	return len(p), err
}

func (h *memHandle) Sync() error {
	if gate := h.d.gate; gate != nil {
		gate()
	}
	if h.d.onSync != nil {
		if err := h.d.onSync(); err != nil {
			return err
		}
	}
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	half, err := h.d.step()
	if err == nil || half && h.d.rng.IntN(2) == 0 {
		for _, w := range h.f.pending {
			h.f.durable = writeAt(h.f.durable, w.data, w.offset)
		}
		h.f.pending, h.f.named = nil, true
	}
	h.d.syncs++
	return err
}

func (h *memHandle) Close() error { return nil }

// The meta store: each commit happens or does not.

func (d *memDisk) Load(string) (types.PersistentState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta.state, nil
}

func (d *memDisk) CommitState(s types.PersistentState) error {
	return d.commitMeta(func() {
		d.meta.state = types.PersistentState{NextSegmentID: s.NextSegmentID, Segments: slices.Clone(s.Segments)}
	})
}

func (d *memDisk) SetStable(key, value []byte) error {
	return d.commitMeta(func() {
		if value == nil {
			delete(d.meta.stable, string(key))
		} else {
			d.meta.stable[string(key)] = slices.Clone(value)
		}
	})
}

func (d *memDisk) commitMeta(change func()) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	half, err := d.step()
	if err == nil || half && d.rng.IntN(2) == 0 {
		change()
	}
	return err
}

func (d *memDisk) GetStable(key []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.meta.stable[string(key)]), nil
}

func (d *memDisk) Close() error { return nil }

// configWith is cfg on this disk.
func (d *memDisk) configWith(cfg Config) Config {
	cfg.open = d.config().open
	return cfg
}
