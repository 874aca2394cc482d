package outbox

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/storage/internal/testenv"
	"github.com/buffstreams/watermill-buffstreams/store"
)

var (
	faults     = flag.Int("outbox.faults", 100, "lives that TestFaults_AtRandom leads, with eight faults each")
	everyFault = flag.Bool("outbox.all", false, "follow every fault by a power cut and by a kill, not by one of them in turns")
)

// script runs a life with everything that writes: appends that fill segments, settling in and out of order, relocation,
// forgetting, closing and opening. It ends with the first error.
func (l *life) script() error {
	steps := []func() error{l.open}
	for round := range 32 {
		steps = append(steps, func() error { return l.append(l.keys[1], 4) })
		if round%2 == 1 {
			steps = append(steps, func() error { return l.append(l.keys[0], 1) })
		}
		if round%3 == 2 {
			steps = append(steps, func() error { return l.settle(l.keys[1], l.acc[l.keys[1]].last-2) })
		}
		switch round {
		case 5, 11:
			steps = append(steps,
				func() error { return l.append(l.keys[2], 2) },
				func() error { return l.settle(l.keys[2], 0, store.Range{First: 2, Last: 2}) })
		case 13:
			steps = append(steps,
				func() error { return l.settle(l.keys[2], l.acc[l.keys[2]].last) },
				func() error { return l.forget(l.keys[2]) },
				func() error { return l.append(l.keys[2], 1) })
		case 16:
			steps = append(steps, l.close, l.open)
		}
	}
	for _, step := range append(steps, l.close) {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// aftermath says what follows a fault before the next open.
type aftermath int

const (
	powerCut aftermath = iota
	killed             // the system keeps running, and shows what the process wrote
)

// runFault runs the script with a fault, and then recovers three times: at once, after a power cut, and after Close.
func runFault(t *testing.T, f fault, then aftermath, seed uint64) (recoveries int) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t, fmt.Sprintf("%+v, %d, seed %d", f, then, seed))
		l.disk = newMemDisk(seed)
		l.disk.fault = f
		err := l.script()
		l.checkFailed(f, err)
		l.disk = l.after(then, seed)
		require.NoError(t, l.open(), l.what)
		l.recovered()
		l.work()
		l.disk.mu.Lock()
		l.disk.cut = true
		l.disk.mu.Unlock()
		_ = l.close()
		l.disk = l.disk.restart(seed + 1)
		require.NoError(t, l.open(), l.what)
		l.recovered()
		require.NoError(t, l.close(), l.what)
		require.NoError(t, l.open(), l.what)
		l.recovered()
		l.work()
		require.NoError(t, l.close(), l.what)
		recoveries = l.recoveries
	})
	return recoveries
}

// checkFailed checks that an outbox which failed returns the reason, and keeps returning it.
func (l *life) checkFailed(f fault, err error) {
	if err == nil {
		return // no operation met the fault
	}
	cause := errors.Is(err, errPowerCut) || errors.Is(err, f.err)
	require.True(l.t, cause, "%s: %v", l.what, err)
	if l.o == nil {
		return
	}
	if f.err != 0 && !f.reading {
		require.ErrorIs(l.t, err, store.ErrFailed, l.what)
		require.ErrorIs(l.t, l.append(l.keys[1], 1), store.ErrFailed, "%s: it must not try again", l.what)
		require.ErrorIs(l.t, l.settle(l.keys[1], 1), store.ErrFailed, l.what)
	}
	_ = l.close()
}

// after returns the disk that the next process finds. A lasting fault is still there when the process first tries.
func (l *life) after(then aftermath, seed uint64) *memDisk {
	d := l.disk.next(seed)
	if f := l.disk.fault; f.lasting {
		d.fault = fault{op: 1, err: f.err, lasting: true, amount: f.amount}
		l.disk = d
		err := l.open()
		require.ErrorIs(l.t, err, f.err, l.what)
		var damage *store.CorruptError
		require.False(l.t, errors.As(err, &damage) && !errors.Is(err, f.err), l.what)
		d.fault = fault{}
		d = d.next(seed)
	}
	if then == powerCut {
		d = d.restart(seed)
	}
	return d
}

// work does what a recovered outbox must be able to do.
func (l *life) work() {
	for _, k := range l.keys {
		require.NoError(l.t, l.append(k, 2), l.what)
	}
	require.NoError(l.t, l.settle(l.keys[1], l.acc[l.keys[1]].last-1), l.what)
	require.NoError(l.t, l.append(l.keys[1], 1), l.what)
}

// measure returns the operations of an undisturbed run.
func measure(t *testing.T) (ops []opKind, reads int) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t, "undisturbed")
		require.NoError(t, l.script())
		ops, reads = l.disk.kinds, l.disk.reads
		require.True(t, l.moved, "the script relocates")
	})
	return ops, reads
}

// TestFaults_AtEveryOperation lets each operation of one life fail once in every way: the power fails before it, in its
// middle and after it; the process is killed there; it returns EIO or ENOSPC, half done or not at all, once or from
// then on.
func TestFaults_AtEveryOperation(t *testing.T) {
	ops, _ := measure(t)
	count := map[opKind]int{}
	for _, kind := range ops {
		count[kind]++
	}
	t.Logf("%d operations: %v", len(ops), count)
	kinds := []fault{
		{cut: true, amount: none}, {cut: true, amount: part}, {cut: true, amount: whole},
		{err: ioError, amount: none}, {err: ioError, amount: part},
		{err: noSpace, amount: none}, {err: noSpace, amount: part},
		{err: noSpace, amount: part, lasting: true}, {err: ioError, amount: part, lasting: true},
	}
	stride, recoveries := testenv.Stride(11), 0
	for op := 1; op <= len(ops) && !t.Failed(); op += stride {
		for i, f := range kinds {
			f.op = op
			for _, then := range []aftermath{powerCut, killed} {
				if !*everyFault && (op+i)%2 != int(then) {
					continue
				}
				recoveries += runFault(t, f, then, uint64(op*len(kinds)+i))
			}
		}
	}
	t.Logf("%d recoveries", recoveries)
}

// TestFaults_AtEveryRead lets each read fail once, which must cost nothing but that read.
func TestFaults_AtEveryRead(t *testing.T) {
	_, reads := measure(t)
	stride, recoveries := testenv.Stride(5), 0
	for op := 1; op <= reads && !t.Failed(); op += stride {
		recoveries += runFault(t, fault{op: op, reading: true, err: ioError}, aftermath(op%2), uint64(op))
	}
	t.Logf("%d reads, %d recoveries", reads, recoveries)
}

// TestFaults_AtRandom lets faults of any kind meet outboxes that went through others before.
func TestFaults_AtRandom(t *testing.T) {
	runs, recoveries := *faults/testenv.Stride(10), 0
	for seed := range uint64(runs) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			l := newLife(t, fmt.Sprintf("seed %d", seed))
			for range 8 {
				f := fault{op: 1 + rng.IntN(200), amount: amount(rng.IntN(3)), cut: rng.IntN(2) == 0}
				if !f.cut {
					f.err, f.amount = ioError, part
				}
				if rng.IntN(3) == 0 {
					f.err = noSpace
				}
				l.what = fmt.Sprintf("seed %d, %+v", seed, f)
				l.disk.fault = f
				l.checkFailed(f, l.script())
				l.disk = l.after(aftermath(rng.IntN(2)), rng.Uint64())
				require.NoError(t, l.open(), l.what)
				l.recovered()
				require.NoError(t, l.close())
			}
			recoveries += l.recoveries
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d recoveries", recoveries)
}

// TestFaults_AfterNoSpaceThereIsRoomAgain fills the disk, and then empties it.
func TestFaults_AfterNoSpaceThereIsRoomAgain(t *testing.T) {
	d := newMemDisk(1)
	o := open(t, d.config())
	fill(t, o, orders, 1, 30, 5)
	d.fault = fault{op: d.ops + 1, err: noSpace, lasting: true, amount: part}
	_, err := o.Append(bg, orders, message(31))
	require.ErrorIs(t, err, store.ErrFailed)
	require.ErrorIs(t, err, noSpace)
	require.ErrorIs(t, o.Close(), noSpace)
	_, err = Open(d.config())
	require.ErrorIs(t, err, noSpace)
	require.NotErrorIs(t, err, os.ErrNotExist)
	d.fault = fault{}
	o = open(t, d.config())
	got := readAll(t, o, orders, 1, 1000)
	require.GreaterOrEqual(t, len(got), 30)
	next := got[len(got)-1] + 1
	fill(t, o, orders, next, next+10, 3)
}
