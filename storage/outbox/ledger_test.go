package outbox

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// ledger is what a careful caller knows of a stream.
type ledger struct {
	id        uint64
	known     map[uint64][]byte // confirmed, or read: both must stay
	last      uint64
	attempted [][][]byte // unconfirmed appends, each there as a whole or not at all
	settled   seqSet     // passed to Settle
	saved     seqSet     // settled and saved: these must not come back
	forgotten bool       // Forget was called, and may have happened
}

// life drives an outbox on a disk with a fault, one call at a time, so that each run of a script does the same
// operations in the same order.
type life struct {
	t          testing.TB
	what       string
	disk       *memDisk
	o          *Outbox
	id         [16]byte
	epoch      uint64
	keys       []store.Key
	acc        map[store.Key]*ledger
	highest    uint64 // stream number
	n          int
	recoveries int
	moved      bool // a relocation wrote copies
}

func newLife(t testing.TB, what string) *life {
	l := &life{t: t, what: what, disk: newMemDisk(1), acc: map[store.Key]*ledger{}, keys: []store.Key{{Destination: "a", Topic: "stuck"}, {Destination: "b", Topic: "1"}, {Destination: "b", Topic: "2"}}}
	for _, k := range l.keys {
		l.acc[k] = &ledger{known: map[uint64][]byte{}}
	}
	return l
}

func (l *life) open() error {
	cfg := l.disk.config()
	cfg.CacheBytes = -1
	o, err := Open(cfg)
	if err != nil {
		require.Zero(l.t, l.disk.open, "%s: a failed Open leaves files open", l.what)
		return err
	}
	require.Greater(l.t, o.Epoch(), l.epoch, "%s: the epoch", l.what)
	if l.id != [16]byte{} {
		require.Equal(l.t, l.id, o.ID(), l.what)
	}
	l.o, l.epoch, l.id = o, o.Epoch(), o.ID()
	synctest.Wait()
	return nil
}

func (l *life) close() error {
	if l.o == nil {
		return nil
	}
	err := l.o.Close()
	if err == nil {
		for _, a := range l.acc {
			a.saved.add(store.Range{First: 1, Last: a.settled.through}, nil)
			for _, r := range a.settled.ranges {
				a.saved.add(r, nil)
			}
		}
	}
	l.o = nil
	require.Zero(l.t, l.disk.open, "%s: Close leaves files open", l.what)
	return err
}

// append stores a batch of small messages.
func (l *life) append(k store.Key, count int) error {
	a := l.acc[k]
	var batch [][]byte
	for range count {
		l.n++
		m := fmt.Appendf(nil, "%v %d ", k, l.n)
		if k != l.keys[0] {
			m = append(m, make([]byte, 300)...)
		}
		batch = append(batch, m)
	}
	first, err := l.o.Append(bg, k, batch...)
	synctest.Wait()
	if err != nil {
		a.attempted = append(a.attempted, batch)
		return err
	}
	require.Equal(l.t, a.last+1, first, "%s: sequences of %v", l.what, k)
	a.take(first, batch)
	l.number(k)
	l.moved = l.moved || moved(l.o)
	for _, a := range l.acc { // the append saved what was settled in order
		a.saved.add(store.Range{First: 1, Last: a.settled.through}, nil)
	}
	return nil
}

func moved(o *Outbox) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.index.segments {
		for _, x := range f.extents {
			if x.origin != (origin{}) {
				return true
			}
		}
	}
	return false
}

func (a *ledger) take(first uint64, batch [][]byte) {
	for i, m := range batch {
		a.known[first+uint64(i)] = m
	}
	a.last = first + uint64(len(batch)) - 1
}

// number checks that a stream keeps its number, and that a new one has a new one.
func (l *life) number(k store.Key) {
	a, id := l.acc[k], streamID(l.o, k)
	if a.id == 0 {
		require.Greater(l.t, id, l.highest, "%s: the number of %v was used before", l.what, k)
		l.highest, a.id = id, id
	}
	require.Equal(l.t, a.id, id, "%s: the number of %v", l.what, k)
}

func (l *life) settle(k store.Key, through uint64, ranges ...store.Range) error {
	a := l.acc[k]
	a.settled.add(store.Range{First: 1, Last: min(through, a.last)}, nil)
	for _, r := range ranges {
		a.settled.add(store.Range{First: r.First, Last: min(r.Last, a.last)}, nil)
	}
	err := l.o.Settle(k, through, ranges...)
	synctest.Wait()
	return err
}

func (l *life) forget(k store.Key) error {
	l.acc[k].forgotten = true
	err := l.o.Forget(bg, k)
	if err == nil {
		l.acc[k] = &ledger{known: map[uint64][]byte{}}
	}
	synctest.Wait()
	return err
}

// read returns all that a stream has pending.
func (l *life) read(k store.Key) (map[uint64][]byte, error) {
	got, before := map[uint64][]byte{}, uint64(0)
	for from := uint64(1); streamID(l.o, k) != 0; {
		b, err := l.o.Read(k, from, 1000)
		if err != nil {
			return got, err
		}
		if len(b.Messages) == 0 {
			break
		}
		for i, m := range b.Messages {
			got[b.First+uint64(i)] = m
		}
		require.Greater(l.t, b.First, before, "%s: order", l.what)
		before, from = b.Next()-1, b.Next()
	}
	return got, nil
}

// recovered compares what an open found with the ledgers, and enters unconfirmed messages that are there.
func (l *life) recovered() {
	l.recoveries++
	for _, k := range l.keys {
		if streamID(l.o, k) == 0 && l.acc[k].forgotten {
			l.acc[k] = &ledger{known: map[uint64][]byte{}}
		}
		got, err := l.read(k)
		require.NoError(l.t, err, l.what)
		l.acc[k].compare(l, k, got)
		if streamID(l.o, k) != 0 {
			l.number(k)
		}
	}
	if tb, ok := l.t.(*testing.T); ok {
		checkIndex(tb, l.o)
	}
}

func (a *ledger) compare(l *life, k store.Key, got map[uint64][]byte) {
	for _, batch := range a.attempted {
		if len(batch) > 0 && bytes.Equal(got[a.last+1], batch[0]) {
			for i, m := range batch {
				require.Equal(l.t, m, got[a.last+1+uint64(i)], "%s: half an append of %v", l.what, k)
			}
			a.take(a.last+1, batch)
		}
	}
	a.attempted = nil
	pending := seqSet{}
	for seq, m := range got {
		require.Contains(l.t, a.known, seq, "%s: %v has a message that was never appended", l.what, k)
		require.Equal(l.t, a.known[seq], m, "%s: sequence %d of %v", l.what, seq, k)
		require.Equal(l.t, seq, a.saved.next(seq), "%s: settled message %d of %v came back", l.what, seq, k)
		pending.add(store.Range{First: seq, Last: seq}, nil)
	}
	settled := seqSet{}
	for seq := uint64(1); seq <= a.last; seq++ {
		if pending.next(seq) == seq {
			require.NotEqual(l.t, seq, a.settled.next(seq), "%s: confirmed message %d of %v is lost", l.what, seq, k)
			settled.add(store.Range{First: seq, Last: seq}, nil)
		}
	}
	a.settled, a.saved = settled, seqSet{through: settled.through, ranges: append([]store.Range(nil), settled.ranges...)}
	a.forgotten = false
}
