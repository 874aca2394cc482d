package session

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// entriesOf counts the messages of a segment.
func entriesOf(body []byte) (int, error) {
	var f PublishFrame
	err := f.entries(body)
	return len(f.Messages), err
}

// sequences lists what segments carry.
func sequences(t *testing.T, segments []Segment) []uint64 {
	t.Helper()
	out := []uint64{}
	for _, s := range segments {
		n, err := entriesOf(s.Body)
		require.NoError(t, err)
		for i := range uint64(n) {
			out = append(out, s.First+i)
		}
	}
	return out
}

func upTo(n uint64, except ...uint64) []uint64 {
	out := []uint64{}
	for seq := uint64(1); seq <= n; seq++ {
		if !slices.Contains(except, seq) {
			out = append(out, seq)
		}
	}
	return out
}

// Wherever the wire breaks, a receiver that lived on gets exactly what it lacks, also from the middle of a chunk.
func TestResume_SendsExactlyWhatTheReceiverLacks(t *testing.T) {
	const total = 12
	for arrived := range total + 1 {
		for _, acked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d arrived, acked %v", arrived, acked), func(t *testing.T) {
				p := newPair(t, roomy, muchRoom)
				p.remote.manual = true
				p.connect()
				p.enqueue("a", many(total)...)
				p.flow()
				s := p.remote.stream("a")
				if arrived > 0 {
					p.remote.grant(s, Amount{Messages: arrived, Bytes: 1000})
				}
				p.remote.ack()
				require.NoError(t, p.deliverDown(10))
				p.output()
				require.NoError(t, p.deliverUp(1<<30)) // messages arrive, their ack may not
				require.Len(t, s.order, arrived)
				if acked {
					p.flow()
				}
				p.cut()
				require.Equal(t, total, p.client.Pending())

				p.remote.manual = false
				p.published = nil
				p.connect()
				p.flow()
				require.Equal(t, upTo(total)[arrived:], sequences(t, p.published), "nothing twice, nothing left out")
				for _, segment := range p.published {
					require.False(t, segment.Gap)
				}
				require.Equal(t, upTo(total), s.order)
				p.remote.settle(s, s.order...)
				p.flow()
				require.Zero(t, p.client.Pending())
			})
		}
	}
}

func TestResume_AcrossChunks(t *testing.T) {
	const total = 3*chunkMessages + 100
	for _, arrived := range []int{1, chunkMessages - 1, chunkMessages, chunkMessages + 1, 2*chunkMessages + 7, total - 1, total} {
		p := newPair(t, roomy, muchRoom)
		p.remote.manual = true
		p.connect()
		p.enqueue("a", many(total)...)
		p.flow()
		s := p.remote.stream("a")
		p.remote.grant(s, Amount{Messages: arrived, Bytes: 1 << 20})
		p.flow()
		p.cut()
		p.published = nil
		p.remote.manual = false
		p.connect()
		p.flow()
		require.Len(t, sequences(t, p.published), total-arrived)
		require.Equal(t, upTo(total), s.order)
	}
}

// A receiver that forgot everything gets every message that is not settled, none that is, and a flag for each gap.
func TestResume_ToARestartedReceiver(t *testing.T) {
	for name, settled := range map[string][]uint64{
		"nothing settled":   nil,
		"the first":         {1},
		"a run at the head": {1, 2, 3},
		"holes":             {2, 3, 7, 10},
		"head and holes":    {1, 2, 5, 6, 9},
		"every other":       {1, 3, 5, 7, 9},
		"the last":          {10},
		"all but the last":  upTo(9),
		"all":               upTo(10),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			p.connect()
			p.enqueue("a", many(10)...)
			p.flow()
			s := p.remote.stream("a")
			p.remote.settle(s, settled...)
			p.flow()
			p.cut()
			p.remote.restart(false)

			p.published = nil
			p.connect()
			p.flow()
			left := upTo(10, settled...)
			require.Equal(t, left, sequences(t, p.published))
			require.Equal(t, left, s.order)
			expected := uint64(0)
			for _, segment := range p.published {
				if expected > 0 {
					require.Equal(t, segment.First > expected, segment.Gap, "segment at %d after %d", segment.First, expected)
				}
				n, err := entriesOf(segment.Body)
				require.NoError(t, err)
				expected = segment.First + uint64(n)
			}
			require.Zero(t, p.client.Unreceived(), "the receiver has all that it can still get")

			p.enqueue("a", many(3)...) // later messages follow, with a gap where the receiver saw nothing of the tail
			p.flow()
			require.Equal(t, append(slices.Clone(left), 11, 12, 13), s.order)
			p.remote.settle(s, s.order...)
			p.flow()
			require.Zero(t, p.client.Pending())
		})
	}
}

func TestResume_TellsWhatWasSettledMeanwhile(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.enqueue("a", many(10)...)
	p.flow()
	s := p.remote.stream("a")
	p.cut()
	p.remote.settle(s, 3, 1, 4, 9, 10)
	p.published = nil
	p.connect()
	p.flow()
	require.Empty(t, p.published)
	require.Equal(t, 5, p.client.Pending())
	opened := frames[*wire.Open](p)
	require.Equal(t, uint64(1), opened[1].Base)
	p.cut()
	p.remote.settle(s, upTo(10)...)
	p.connect()
	p.flow()
	require.Zero(t, p.client.Pending())
	require.Equal(t, uint64(2), frames[*wire.Open](p)[2].Base)
}

// Opened carries a bounded number of ranges; the others follow as acks.
func TestResume_WithMoreRangesThanOneFrameCarries(t *testing.T) {
	const total = 5*MaxRanges + 3
	for name, away := range map[string]func(*pair){
		"away":      func(*pair) {},
		"restarted": func(p *pair) { p.remote.restart(true) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, roomy, muchRoom)
			p.connect()
			p.enqueue("a", many(total)...)
			p.flow()
			s := p.remote.stream("a")
			p.cut()
			for seq := uint64(2); seq <= total; seq += 2 {
				p.remote.settle(s, seq)
			}
			away(p)
			p.connect()
			p.flow()
			require.Equal(t, total-total/2, p.client.Pending())
			p.remote.settle(s, upTo(total)...)
			p.flow()
			require.Zero(t, p.client.Pending())
		})
	}
}

// A receiver that remembers what was settled, and nothing else, gets the rest.
func TestResume_ToADurableReceiver(t *testing.T) {
	for name, settled := range map[string][]uint64{
		"nothing": nil, "head": {1, 2, 3}, "holes": {2, 3, 7, 10}, "the last": {10}, "all but one": upTo(10, 4),
	} {
		for _, told := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, told %v", name, told), func(t *testing.T) {
				p := newPair(t, roomy, muchRoom)
				p.connect()
				p.enqueue("a", many(10)...)
				p.flow()
				s := p.remote.stream("a")
				p.remote.settle(s, settled...)
				if told {
					p.flow()
				}
				p.cut()
				p.remote.restart(true)
				p.connect()
				p.flow()
				require.Equal(t, upTo(10, settled...), s.order)
				require.Equal(t, 10-len(settled), p.client.Pending())
				p.remote.settle(s, s.order...)
				p.enqueue("a", many(2)...)
				p.flow()
				p.remote.settle(s, 11, 12)
				p.flow()
				require.Zero(t, p.client.Pending())
			})
		}
	}
}

// A rejection is repeated at every connection until the sender has confirmed it, and is reported once.
func TestInbound_RepeatsRejectionsUntilSeen(t *testing.T) {
	p := newPair(t, roomy, muchRoom)
	p.connect()
	p.enqueue("a", many(5)...)
	p.flow()
	s := p.remote.stream("a")
	w := p.wait("a", Handled, 1, 5)
	p.remote.reject(s, 2)
	p.cut() // the reject is lost
	require.Empty(t, p.refused)
	p.connect()
	p.output()
	require.NoError(t, p.deliverUp(1<<30))
	require.NoError(t, p.deliverDown(1<<30))
	for p.output() {
	}
	require.NoError(t, p.deliverUp(1<<30))
	require.NoError(t, p.deliverDown(1<<30))
	require.Len(t, p.refused, 1)
	require.Equal(t, uint64(2), p.refused[0].Sequence)
	require.Equal(t, string(content("a", 2, 0)), string(p.refused[0].Message))
	p.cut() // the confirmation is lost
	p.connect()
	p.flow()
	require.Len(t, p.refused, 1, "reported once")
	require.Len(t, frames[*wire.RejectSeen](p), 1)
	p.cut()
	p.connect()
	p.flow()
	require.Len(t, frames[*wire.RejectSeen](p), 1, "confirmed: not repeated")
	require.False(t, done(w))
	p.remote.settle(s, 1, 3, 4, 5)
	p.flow()
	require.True(t, done(w))
	require.ErrorIs(t, w.Err, error(p.refused[0].Err))
	require.Zero(t, p.client.Pending())
	require.True(t, s.in.Idle())
}

func TestInbound_ClosesWhatTheSenderClosed(t *testing.T) {
	in := NewInbound(5)
	require.Equal(t, uint64(5), in.Next())
	require.True(t, in.Idle())
	opened, rejects := in.Attach(1, 9) // the sender settled more elsewhere
	require.Equal(t, uint64(9), opened.Next)
	require.Empty(t, opened.Settled)
	require.Empty(t, rejects)
	require.True(t, in.Idle())
	in.Grant(Amount{Messages: 3, Bytes: 100})
	_, _, _, err := in.Accept(&PublishFrame{Handle: 1, First: 10, Messages: [][]byte{nil}, Bytes: 2})
	var broken *ProtocolError
	require.ErrorAs(t, err, &broken, "9 was not sent, and no gap announced")
	fresh, first, dup, err := in.Accept(&PublishFrame{Handle: 1, First: 8, Messages: [][]byte{nil, {1}}, Bytes: 5})
	require.NoError(t, err)
	require.Equal(t, [][]byte{{1}}, fresh)
	require.Equal(t, uint64(9), first)
	require.Equal(t, Amount{Messages: 1, Bytes: 2}, dup)
	require.Equal(t, 1, in.Unsettled())
	in.Grant(Amount{Messages: 5, Bytes: 100})
	_, first, _, err = in.Accept(&PublishFrame{Handle: 1, First: 15, Gap: true, Messages: [][]byte{nil}, Bytes: 2})
	require.NoError(t, err)
	require.Equal(t, uint64(15), first)
	require.Equal(t, 2, in.Unsettled(), "what lies in the gap is closed")
	in.Settle(15, 15)
	in.Settle(9, 9)
	require.True(t, in.Idle())
	opened, _ = in.Attach(2, 3) // an older base changes nothing
	require.Equal(t, uint64(16), opened.Next)
	require.Equal(t, []uint64{3, 15}, opened.Settled)
}

func TestInbound_DropsDuplicates(t *testing.T) {
	in := NewInbound(1)
	in.Attach(1, 1)
	in.Grant(Amount{Messages: 100, Bytes: 1000})
	send := func(first uint64, n int) (int, uint64, Amount) {
		f := &PublishFrame{Handle: 1, First: first, Messages: make([][]byte, n), Bytes: 2 * n}
		fresh, at, dup, err := in.Accept(f)
		require.NoError(t, err)
		return len(fresh), at, dup
	}
	n, _, dup := send(1, 5)
	require.Equal(t, 5, n)
	require.Zero(t, dup)
	for first := uint64(1); first <= 5; first++ {
		n, _, dup = send(first, int(6-first))
		require.Zero(t, n)
		require.Equal(t, Amount{Messages: int(6 - first), Bytes: 2 * int(6-first)}, dup)
	}
	n, first, dup := send(3, 6)
	require.Equal(t, 3, n)
	require.Equal(t, uint64(6), first)
	require.Equal(t, Amount{Messages: 3, Bytes: 6}, dup)
	require.Equal(t, 8, in.Unsettled())
	in.Settle(4, 4)
	in.Settle(4, 4)
	require.Equal(t, 7, in.Unsettled())
}

// The receiver is bounded by the credit it gave, whatever a sender does; what is over it changes nothing.
func TestInbound_RefusesMoreThanItsCredit(t *testing.T) {
	publish := func(first uint64, n, size int) *PublishFrame {
		f := &PublishFrame{Handle: 1, First: first, Bytes: n * EncodedSize(size)}
		for range n {
			f.Messages = append(f.Messages, make([]byte, size))
		}
		return f
	}
	in := NewInbound(1)
	in.Attach(1, 1)
	refused := func(f *PublishFrame) {
		t.Helper()
		next, left := in.Next(), in.Outstanding()
		_, _, _, err := in.Accept(f)
		requireViolation(t, err)
		require.Equal(t, next, in.Next())
		require.Equal(t, left, in.Outstanding())
	}
	refused(publish(1, 1, 0))
	in.Grant(Amount{Messages: 3, Bytes: 3 * EncodedSize(10)})
	refused(publish(1, 4, 1))
	refused(publish(1, 1, 40))
	refused(publish(0, 1, 1))
	refused(publish(^uint64(0), 1, 1))
	_, _, _, err := in.Accept(publish(1, 2, 10))
	require.NoError(t, err)
	refused(publish(3, 2, 1))
	refused(publish(1, 2, 1)) // duplicates use credit as well
	returned, ok := in.Return(2)
	require.False(t, ok, "the sender did not know of the third: %+v", returned)
	returned, ok = in.Return(3)
	require.True(t, ok)
	require.Equal(t, Amount{Messages: 1, Bytes: EncodedSize(10)}, returned)
	refused(publish(3, 1, 1))
	in.Grant(Amount{Messages: 0, Bytes: 100})
	refused(publish(3, 1, 1))
	in.Grant(Amount{Messages: 1, Bytes: EncodedSize(10)})
	_, _, _, err = in.Accept(publish(3, 1, 10))
	require.NoError(t, err)
	in.Grant(Amount{Messages: 1, Bytes: 100})
	in.Detach()
	refused(publish(4, 1, 1))
}
