package flow

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// decisions is a fuzzer's input as a source of decisions; after its end all of them are 0.
type decisions []byte

func (s *decisions) next(n int) int {
	if len(*s) == 0 || n <= 0 {
		return 0
	}
	b := int((*s)[0])
	*s = (*s)[1:]
	return b % n
}

const maxDecisions = 1000

// FuzzWindow lets claims wait in several windows of one budget. Room is neither lost nor given twice, what is granted
// is what was asked for, and claims of a window are served in their order.
func FuzzWindow(f *testing.F) {
	f.Add([]byte{40, 0, 5, 9, 0, 0, 7, 0, 1, 1, 3, 2, 0, 2, 1, 1, 1})
	f.Add([]byte{10, 1, 9, 200, 1, 1, 9, 200, 1, 2, 2, 0, 3, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxDecisions {
			t.Skip("long")
		}
		in := decisions(data)
		m := &windowModel{t: t, memory: 20 + in.next(200)}
		m.budget = NewBudget(m.memory)
		for range 3 {
			m.windows = append(m.windows, openWindowOf(m.budget, 10, 100))
		}
		m.lines = make([][]*Claim, 3)
		for len(in) > 0 {
			m.step(&in)
			m.check()
		}
		m.finish()
	})
}

type windowModel struct {
	t       *testing.T
	budget  *Budget
	memory  int
	windows []*Window
	lines   [][]*Claim // of each window, those that wait
	held    []holding
}

type holding struct {
	window int
	Amount
}

func (m *windowModel) step(in *decisions) {
	i := in.next(3)
	w := m.windows[i]
	switch in.next(6) {
	case 0:
		want := amount(in.next(12), in.next(120))
		if got := w.Take(want); got != (Amount{}) {
			require.Empty(m.t, m.lines[i], "others wait")
			m.got(i, got, amount(1, 1), want)
		}
	case 1, 2:
		m.wait(i, amount(in.next(12), in.next(120)), amount(in.next(6), in.next(60)))
	case 3:
		if n := len(m.lines[i]); n > 0 {
			at := in.next(n)
			c := m.lines[i][at]
			m.lines[i] = append(m.lines[i][:at], m.lines[i][at+1:]...)
			w.Cancel(c)
		}
	case 4:
		m.release(in)
	case 5:
		if w.SetHungry(in.next(2) == 0) {
			w.Serve()
		}
	}
}

func (m *windowModel) wait(i int, want, least Amount) {
	c := &Claim{Want: want, Least: least, Enough: want}
	c.Grant = func(a Amount) {
		require.NotEmpty(m.t, m.lines[i])
		require.Same(m.t, c, m.lines[i][0], "out of line")
		m.lines[i] = m.lines[i][1:]
		m.got(i, a, c.Least, c.Want)
	}
	m.lines[i] = append(m.lines[i], c)
	m.windows[i].Wait(c)
}

func (m *windowModel) got(i int, a, least, want Amount) {
	require.GreaterOrEqual(m.t, a.Messages, least.Messages)
	require.GreaterOrEqual(m.t, a.Bytes, least.Bytes)
	require.LessOrEqual(m.t, a.Messages, want.Messages)
	require.LessOrEqual(m.t, a.Bytes, want.Bytes)
	m.held = append(m.held, holding{i, a})
}

// release gives back a holding, or a part of it.
func (m *windowModel) release(in *decisions) {
	if len(m.held) == 0 {
		return
	}
	k := in.next(len(m.held))
	h := m.held[k]
	part := amount(min(h.Messages, in.next(12)), min(h.Bytes, in.next(120)))
	if in.next(2) == 0 {
		part = h.Amount
	}
	m.held[k].Messages -= part.Messages
	m.held[k].Bytes -= part.Bytes
	m.windows[h.window].Release(part)
}

func (m *windowModel) check() {
	bytes := 0
	sums := make([]Amount, 3)
	for _, h := range m.held {
		sums[h.window].Messages += h.Messages
		sums[h.window].Bytes += h.Bytes
		bytes += h.Bytes
	}
	require.Equal(m.t, int64(m.memory-bytes), m.budget.free.Load())
	for i, w := range m.windows {
		require.Equal(m.t, amount(10-sums[i].Messages, 100-sums[i].Bytes), w.free)
		require.Len(m.t, w.waiting, len(m.lines[i]))
		requireServed(m.t, w)
	}
	require.Nil(m.t, m.budget.next())
}

// finish gives everything back until no claim waits that could ever be served.
func (m *windowModel) finish() {
	for range maxDecisions {
		if len(m.held) == 0 {
			break
		}
		h := m.held[0]
		m.held = m.held[1:]
		m.windows[h.window].Release(h.Amount)
	}
	for _, w := range m.windows {
		if w.SetHungry(true) {
			w.Serve()
		}
	}
	for len(m.held) > 0 {
		h := m.held[0]
		m.held = m.held[1:]
		m.windows[h.window].Release(h.Amount)
	}
	m.check()
	for _, line := range m.lines {
		if len(line) > 0 { // a claim that the budget can never serve holds up those behind
			require.Greater(m.t, line[0].Least.Bytes, m.memory, "nothing is held and it still waits")
		}
	}
	for _, w := range m.windows {
		w.Close()
	}
	require.Equal(m.t, int64(m.memory), m.budget.free.Load())
}
