package dedupe

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
)

// fault says which write of the file fails, and how.
type fault struct {
	op     int // 0 for none
	amount amount
	cut    bool          // the power fails, so that the caller never learns of it
	err    syscall.Errno // otherwise, what the write returns
	sync   bool          // the write succeeds, and the next fsync fails
}

type amount int

const (
	whole amount = iota
	part
	none
)

var errPowerCut = syscall.ENODEV

// disk stands between bbolt and its file. bbolt writes pages, syncs, writes a meta page and syncs again; the tests
// prove that from outside, by letting each of these fsyncs fail. So what a meta page follows is durable, and all else
// that is not confirmed survives in any combination.
type disk struct {
	rng     *rand.Rand
	path    string
	durable []byte
	pending []write
	fault   fault
	ops     int
	meta    bool // the last write was of a meta page
	cut     bool
	restore func() // puts the real file back
	file    **os.File
	real    *os.File
}

type write struct {
	offset int64
	data   []byte
}

// attach redirects the writes of an open store to a disk.
func attach(t testing.TB, s *Store, seed uint64) *disk {
	d := &disk{rng: rand.New(rand.NewPCG(seed, 5)), path: s.cfg.Path, durable: read(t, s.cfg.Path), restore: func() {}}
	db := reflect.ValueOf(s.db.DB).Elem()
	d.file = (**os.File)(unsafe.Pointer(db.FieldByName("file").UnsafeAddr()))
	hook := (*func([]byte, int64) (int, error))(unsafe.Pointer(db.FieldByName("ops").FieldByName("writeAt").UnsafeAddr()))
	f := *d.file
	d.real = f
	*hook = func(b []byte, offset int64) (int, error) { return d.writeAt(t, f, b, offset) }
	return d
}

func (d *disk) writeAt(t testing.TB, f *os.File, b []byte, offset int64) (int, error) {
	if d.cut {
		return 0, errPowerCut
	}
	if info, err := f.Stat(); err == nil && info.Size() > int64(len(d.durable)) {
		d.durable = append(d.durable, make([]byte, info.Size()-int64(len(d.durable)))...) // growing was synced
	}
	meta := offset < 2*int64(os.Getpagesize())
	if meta || d.meta {
		d.synced() // a store that saw the fsync of its meta page fail writes no more
	}
	if *d.file != d.real {
		require.False(t, meta || d.meta, "bbolt writes on after an fsync that failed, or was not made")
	}
	d.meta = meta
	d.ops++
	n, err := len(b), error(nil)
	if d.ops == d.fault.op {
		n, err = d.fail(t, len(b))
	}
	if n > 0 {
		_, werr := f.WriteAt(b[:n], offset)
		require.NoError(t, werr)
		d.pending = append(d.pending, write{offset, slices.Clone(b[:n])})
	}
	return n, err
}

func (d *disk) fail(t testing.TB, size int) (int, error) {
	n, err := size, error(d.fault.err)
	switch {
	case d.fault.sync:
		d.breakSync(t)
		return n, nil
	case d.fault.cut:
		d.cut, err = true, errPowerCut
	}
	switch d.fault.amount {
	case part:
		n = d.rng.IntN(size + 1)
	case none:
		n = 0
	}
	return n, err
}

// breakSync gives bbolt a file whose fsync fails.
func (d *disk) breakSync(t testing.TB) {
	r, w, err := os.Pipe()
	require.NoError(t, err)
	file := *d.file
	*d.file = w
	d.restore = func() {
		*d.file = file
		require.NoError(t, r.Close())
		require.NoError(t, w.Close())
		d.restore = func() {}
	}
}

// synced makes durable what was written.
func (d *disk) synced() {
	for _, w := range d.pending {
		copy(d.durable[w.offset:], w.data)
	}
	d.pending = nil
}

// image returns what a power cut leaves of the file.
func (d *disk) image() []byte {
	data := slices.Clone(d.durable)
	for _, w := range d.pending {
		data = testenv.Tear(d.rng, data, w.data, w.offset)
	}
	return data
}

func read(t testing.TB, path string) []byte {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// place writes an image to a file in dir, and returns its path.
func place(t testing.TB, dir string, data []byte) string {
	path := filepath.Join(dir, "dedupe")
	_ = os.Remove(path)
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}
