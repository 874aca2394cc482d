package outbox

import (
	"io"
	"maps"
	"os"
	"slices"
	"syscall"

	"github.com/hashicorp/raft-wal/types"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
)

type opKind string

const (
	opCreate   opKind = "create"
	opAllocate opKind = "allocate"
	opWrite    opKind = "write"
	opSync     opKind = "fsync"
	opSyncDir  opKind = "fsync of the directory"
	opRemove   opKind = "remove"
	opMeta     opKind = "meta commit"
)

// fault says which operation fails, and how.
type fault struct {
	op      int  // 0 for none
	reading bool // op counts reads
	amount  amount
	cut     bool          // the power fails, so that the caller never learns of it
	err     syscall.Errno // otherwise, what the operation returns
	lasting bool          // all later operations fail as well
}

// amount is how much of an operation that failed was done.
type amount int

const (
	whole amount = iota
	part
	none
)

// step counts an operation and says how much of it is done.
func (d *memDisk) step(kind opKind) (amount, error) {
	if d.cut {
		return none, errPowerCut
	}
	d.ops++
	d.kinds = append(d.kinds, kind)
	f := d.fault
	if d.ops == d.cutAt {
		f = fault{op: d.ops, cut: true, amount: part}
	}
	if f.reading || f.op == 0 || d.ops < f.op || (d.ops > f.op && !f.lasting) {
		return whole, nil
	}
	switch {
	case f.cut:
		d.cut = true
		return f.amount, errPowerCut
	case f.err == noSpace && kind == opRemove:
		return whole, nil
	}
	return f.amount, f.err
}

func (d *memDisk) stepRead() error {
	if d.cut {
		return nil // the process is dead, and its reads do no harm
	}
	d.reads++
	f := d.fault
	if f.op == 0 || !(f.lasting && f.err == ioError || f.reading) {
		return nil
	}
	if f.reading && (d.reads == f.op || f.lasting && d.reads > f.op) || !f.reading && d.ops >= f.op {
		return f.err
	}
	return nil
}

func (d *memDisk) List(string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.files)), d.stepRead()
}

func (d *memDisk) Open(path string, flag int) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if flag&os.O_CREATE != 0 {
		return d.create(base(path))
	}
	if err := d.stepRead(); err != nil {
		return nil, err
	}
	f := d.files[base(path)]
	if f == nil {
		return nil, os.ErrNotExist
	}
	d.open++
	return &memHandle{d: d, f: f}, nil
}

func (d *memDisk) create(name string) (file, error) {
	if d.files[name] != nil {
		return nil, os.ErrExist
	}
	done, err := d.step(opCreate)
	f := &memFile{}
	if done == whole || done == part && d.coin() {
		d.files[name] = f
	}
	if err != nil {
		return nil, err
	}
	d.open++
	return &memHandle{d: d, f: f}, nil
}

func (d *memDisk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	done, err := d.step(opRemove)
	if done == whole || done == part && d.coin() {
		delete(d.files, base(path))
	}
	return err
}

// SyncDir makes names durable. If it fails, any of the names may be durable.
func (d *memDisk) SyncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	done, err := d.step(opSyncDir)
	if done == whole {
		d.durable = maps.Clone(d.files)
		return err
	}
	all := maps.Clone(d.files)
	maps.Copy(all, d.durable)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := d.files[name]
		switch {
		case done == none || d.coin():
		case f == nil:
			delete(d.durable, name)
		default:
			d.durable[name] = f
		}
	}
	return err
}

type memHandle struct {
	d      *memDisk
	f      *memFile
	closed bool
}

func (h *memHandle) ReadAt(p []byte, offset int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := h.d.stepRead(); err != nil {
		return 0, err
	}
	if offset >= int64(len(h.f.current)) {
		return 0, io.EOF
	}
	n := copy(p, h.f.current[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes a part if it fails half way.
func (h *memHandle) WriteAt(p []byte, offset int64) (n int, err error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	done, err := h.d.step(opWrite)
	switch done {
	case whole:
		n = len(p)
	case part:
		n = h.d.rng.IntN(len(p) + 1)
		if h.d.cut {
			n = len(p) // restart tears it
		}
	}
	if n > 0 {
		h.f.current = testenv.WriteAt(h.f.current, p[:n], offset)
		h.f.pending = append(h.f.pending, memWrite{offset, slices.Clone(p[:n])})
	}
	return n, err
}

func (h *memHandle) Allocate(size int64) error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	done, err := h.d.step(opAllocate)
	if done == whole || done == part && h.d.coin() {
		h.f.current = testenv.WriteAt(h.f.current, nil, size)
		h.f.pending = append(h.f.pending, memWrite{offset: size})
	}
	return err
}

// SyncData that fails loses the bytes that it did not write: the system shows them, and does not try again.
func (h *memHandle) SyncData() error {
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
	done, err := h.d.step(opSync)
	h.d.syncs++
	if err != nil && done == none && h.d.cut {
		return err // it did not begin
	}
	for _, w := range h.f.pending {
		switch done {
		case whole:
			h.f.durable = testenv.WriteAt(h.f.durable, w.data, w.offset)
		case part:
			h.f.durable = h.d.tear(h.f.durable, w)
		}
	}
	h.f.pending = nil
	return err
}

func (h *memHandle) Close() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if h.closed {
		return os.ErrClosed
	}
	h.closed = true
	h.d.open--
	return nil
}

// memDisk is a meta store too, whose commits happen or do not. A commit that fails can be visible although it is not on
// the disk; the tests of boltfile show that the next Open makes it durable.

func (d *memDisk) Load(string) (types.PersistentState, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.stepRead(); err != nil {
		return types.PersistentState{}, err
	}
	if !d.cut {
		d.metaRaw = d.meta.clone()
	}
	return d.meta.clone().state, nil
}

func (d *memDisk) CommitState(s types.PersistentState) error {
	return d.commitMeta(func(m *memMeta) {
		m.state = types.PersistentState{NextSegmentID: s.NextSegmentID, Segments: slices.Clone(s.Segments)}
	})
}

func (d *memDisk) SetStable(key, value []byte) error {
	return d.commitMeta(func(m *memMeta) {
		if value == nil {
			delete(m.stable, string(key))
		} else {
			m.stable[string(key)] = slices.Clone(value)
		}
	})
}

func (d *memDisk) commitMeta(change func(*memMeta)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	done, err := d.step(opMeta)
	if done == whole || done == part && d.coin() {
		change(&d.meta)
		if done == whole || d.coin() {
			change(&d.metaRaw)
		}
	}
	return err
}

func (d *memDisk) GetStable(key []byte) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.meta.stable[string(key)]), d.stepRead()
}

// Close closes the meta store.
func (d *memDisk) Close() error { return nil }
