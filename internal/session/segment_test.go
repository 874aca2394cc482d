package session

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
)

// Each flag of a segment, and no other, arrives, also in a frame that was decoded into before; both ways to write a segment give the
// same bytes, and a segment without flags says nothing of them.
func TestSegment_ArrivesWithItsFlags(t *testing.T) {
	for _, checksum := range []bool{false, true} {
		e := encoder(t, checksum)
		var p PublishFrame
		for flags := range 8 {
			s := Segment{
				Handle: 300, First: 1 << 40, Count: 2, Body: body([]byte("one"), []byte("two")),
				Gap: flags&flagGap != 0, AckNow: flags&flagAckNow != 0, Again: flags&flagAgain != 0,
			}
			whole, err := e.AppendPublish([]byte("before"), s)
			require.NoError(t, err)
			around, at, err := e.AppendAround([]byte("before"), s)
			require.NoError(t, err)
			require.Equal(t, whole, slices.Insert(around, at, s.Body...))
			opened, err := e.Verify(payload(t, e, whole[len("before"):]))
			require.NoError(t, err)
			require.NoError(t, p.Decode(opened))
			require.Equal(t, []any{s.Handle, s.First, s.Gap, s.AckNow, s.Again, 10}, []any{p.Handle, p.First, p.Gap, p.AckNow, p.Again, p.Bytes})
			require.Equal(t, [][]byte{[]byte("one"), []byte("two")}, p.Messages)
			fields := 3 + 7 // of the handle and the sequence
			if flags != 0 {
				fields += 2
			}
			require.Len(t, opened, 2+fields+len(s.Body))
		}
		p.Memory = []byte("memory")
		p.Release()
		require.Nil(t, p.Memory)
		require.Empty(t, p.Messages)
		require.Equal(t, [][]byte{nil, nil}, p.Messages[:2], "it keeps nothing of the payload")
	}
}

// What the codec refuses leaves what was written as it was, and an Ack says nothing of what has not changed.
func TestSegment_IsRefusedByTheCodec(t *testing.T) {
	codec, err := framing.NewFixed(4, binary.BigEndian, 30)
	require.NoError(t, err)
	e := Encoder{Codec: codec, Checksum: true}
	out, _, err := e.AppendAround([]byte("before"), Segment{Handle: 1, First: 1, Body: body(pattern(40))})
	var tooLong *framing.LengthError
	require.ErrorAs(t, err, &tooLong)
	require.Equal(t, "before", string(out))
	out, err = e.AppendAck([]byte("before"), AckFrame{Handle: 1, Settled: make([]uint64, 40)})
	require.ErrorAs(t, err, &tooLong)
	require.Equal(t, "before", string(out))

	e.Checksum = false
	out, err = e.AppendAck(nil, AckFrame{Handle: 1})
	require.NoError(t, err)
	require.Equal(t, []byte{0, 0, 0, 4, ackTag, 2, 8, 1}, out)
}

// A body that is cut is none, though its frame is whole.
func TestDecode_RefusesABodyThatIsCut(t *testing.T) {
	for _, payload := range [][]byte{{0x52, 2, 8, 0x80}, {0x0a, 2, 0x1a, 9}, {0x22, 3, 8, 1, 0x10}} {
		got, err := Decode(payload)
		requireViolation(t, err)
		require.Nil(t, got)
	}
}
