package session

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzInbound has a sender say anything to the receiving half of a stream, beside a model that is a set of sequences:
// what is delivered was not delivered before, is in order, within credit, and never what is settled.
func FuzzInbound(f *testing.F) {
	f.Add([]byte{0, 1, 0, 9, 9, 1, 1, 1, 3, 2, 2, 3, 1, 4, 5})
	f.Add([]byte{0, 200, 1, 0, 9, 9, 1, 201, 1, 2, 5, 1, 202, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxScript {
			t.Skip("long")
		}
		in := newScript(data)
		m := &inboundModel{t: t, in: NewInbound(in.number()), delivered: map[uint64]bool{}}
		m.next = m.in.Next()
		m.in.Attach(1, 1)
		for len(in.data) > 0 {
			m.step(in)
			m.check()
		}
	})
}

type inboundModel struct {
	t         *testing.T
	in        *Inbound
	next      uint64
	room      Amount // credit that is out
	delivered map[uint64]bool
	order     []uint64
}

func (m *inboundModel) step(s *script) {
	switch s.byte() % 8 {
	case 0:
		a := Amount{Messages: s.byte() % 32, Bytes: s.byte() * 2}
		if a.Messages > 0 {
			m.in.Grant(a)
			m.room.Messages, m.room.Bytes = m.room.Messages+a.Messages, m.room.Bytes+a.Bytes
		}
	case 1, 2, 3:
		m.publish(s)
	case 4:
		if n := len(m.order); n > 0 {
			seq := m.order[s.byte()%n]
			if _, rejected := m.in.rejected[seq]; !rejected { // one or the other, as the log sees to
				m.in.Settle(seq, seq)
			}
		}
	case 5:
		if n := len(m.order); n > 0 {
			seq := m.order[s.byte()%n]
			if !m.in.settled.Has(seq) {
				m.in.Reject(seq, &PeerError{})
			}
		}
		m.in.RejectSeen(s.number())
	case 6:
		before := m.in.Outstanding()
		back, ok := m.in.Return(s.number())
		if ok {
			require.Equal(m.t, before, back)
			m.room = Amount{}
		}
	case 7:
		base := s.number()
		opened, _ := m.in.Attach(2, base)
		m.room = Amount{}
		m.next = max(m.next, base)
		require.GreaterOrEqual(m.t, opened.Next, base)
		require.LessOrEqual(m.t, len(opened.Settled), 2*MaxRanges)
	}
	for {
		ack, ok := m.in.Ack()
		if !ok {
			return
		}
		require.Zero(m.t, len(ack.Settled)%2)
	}
}

func (m *inboundModel) publish(s *script) {
	f := &PublishFrame{First: s.number(), Gap: s.byte()%2 == 0}
	if s.byte()%2 == 0 { // mostly where it belongs, or nothing would be delivered
		f.First = m.in.Next() - min(uint64(s.byte()%3), m.in.Next()-1)
	}
	for range 1 + s.byte()%5 {
		msg := bytes.Repeat([]byte{1}, s.byte()%8)
		f.Messages, f.Bytes = append(f.Messages, msg), f.Bytes+EncodedSize(len(msg))
	}
	before, clone := m.in.next, m.in.settled.Clone()
	fresh, first, dup, err := m.in.Accept(f)
	if err != nil {
		require.Empty(m.t, fresh)
		if !f.Gap {
			require.Equal(m.t, before, m.in.next)
			require.Equal(m.t, clone, m.in.settled, "a fault moves nothing")
		}
		m.next = m.in.next // a gap may have been closed before the fault showed
		return
	}
	m.room.Messages -= len(f.Messages)
	m.room.Bytes -= f.Bytes
	require.GreaterOrEqual(m.t, m.room.Messages, 0, "sent beyond credit")
	require.GreaterOrEqual(m.t, m.room.Bytes, 0, "sent beyond credit")
	require.Equal(m.t, len(f.Messages), len(fresh)+dup.Messages)
	if len(fresh) > 0 {
		require.Equal(m.t, max(m.next, f.First), first)
	}
	for i := range fresh {
		seq := first + uint64(i)
		require.False(m.t, m.delivered[seq], "%d comes twice", seq)
		require.False(m.t, clone.Has(seq), "%d was settled", seq)
		m.delivered[seq] = true
		m.order = append(m.order, seq)
	}
	m.next = max(m.next, f.First+uint64(len(f.Messages)))
}

func (m *inboundModel) check() {
	require.Equal(m.t, m.next, m.in.Next())
	require.Equal(m.t, m.room, m.in.Outstanding())
	require.LessOrEqual(m.t, m.in.settled.Next(), m.in.Next())
	unsettled := 0
	for _, seq := range m.order {
		if _, rejected := m.in.rejected[seq]; !rejected && !m.in.settled.Has(seq) {
			unsettled++
		}
	}
	require.Equal(m.t, unsettled, m.in.Unsettled())
}

// FuzzWatermark compares the set with a plain one.
func FuzzWatermark(f *testing.F) {
	f.Add([]byte{1, 1, 2, 1, 4, 2, 1, 9, 1, 1, 3, 1, 1, 6, 3})
	f.Add([]byte{5, 1, 20, 5, 1, 30, 5, 1, 25, 9, 1, 1, 40})
	f.Fuzz(func(t *testing.T, data []byte) {
		in := newScript(data)
		base := 1 + uint64(in.byte()%16)
		w, set := NewWatermark(base), map[uint64]bool{}
		for seq := range base {
			set[seq] = true
		}
		const top = 512
		for len(in.data) > 0 {
			first := uint64(in.byte()) + uint64(in.byte()%2)
			last := first + uint64(in.byte()%32)
			added := uint64(0)
			for seq := first; seq <= last; seq++ {
				if !set[seq] {
					added++
				}
				set[seq] = true
			}
			require.Equal(t, added, w.Add(first, last), "%d to %d", first, last)
		}
		next, above := uint64(0), 0
		for set[next] {
			next++
		}
		for seq := range uint64(top) {
			require.Equal(t, set[seq], w.Has(seq), seq)
			if seq > next && set[seq] {
				above++
			}
			from, to := w.Hole(seq)
			require.False(t, set[from])
			for s := seq; s < from; s++ {
				require.True(t, set[s], "%d before the hole at %d", s, from)
			}
			require.True(t, to == ^uint64(0) || set[to+1], "the hole from %d ends at %d", from, to)
		}
		require.Equal(t, next, w.Next())
		require.Equal(t, above, w.Above())
		restored := NewWatermark(1)
		pairs := w.AppendPairs(nil, 1)
		for i := 0; i < len(pairs); i += 2 {
			restored.Add(pairs[i], pairs[i+1])
		}
		require.Equal(t, w.Next(), restored.Next())
		require.Equal(t, pairs, restored.AppendPairs(nil, 1))
	})
}
