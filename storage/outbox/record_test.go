package outbox

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// TestRecord_RefusesEveryPartOfOne, and counts that its payload cannot have.
func TestRecord_RefusesEveryPartOfOne(t *testing.T) {
	messages := func(first uint64, count int, payload string) []byte {
		return append(appendMessagesHeader(nil, extentKey{300, origin{400, 500}}, first, count, len(payload)), payload...)
	}
	for _, whole := range [][]byte{
		appendStreamRecord(nil, 300, store.Key{Destination: "127.0.0.1:1", Topic: "orders"}),
		messages(600, 2, "\x02ab\x02cd"), messages(1, 3, "\x00\x00\x00"), appendSettledRecord(nil, 300, 400), appendForgetRecord(nil, 300),
	} {
		d := decoder{b: whole}
		r := d.record()
		require.False(t, d.bad)
		require.Empty(t, d.b)
		require.EqualValues(t, 300, r.stream)
		for n := 1; n < len(whole); n++ {
			d := decoder{b: whole[:n]}
			d.record()
			require.True(t, d.bad, "%d of the %d bytes of a record of kind %d", n, len(whole), whole[0])
			require.Empty(t, d.b, "nothing is read behind it")
		}
	}
	for _, bad := range [][]byte{messages(0, 1, "\x00"), messages(1, 0, "\x00"), messages(1, 2, "\x00"), {0}, {recordForget + 1, 1}} {
		d := decoder{b: bad}
		d.record()
		require.True(t, d.bad, "%x", bad)
	}
}

// TestRecord_Encodings have the sizes that the quota counts, at each length where they grow.
func TestRecord_Encodings(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 16383, 16384, 2097151, 2097152} {
		m := make([]byte, n)
		require.Len(t, appendString(nil, string(m)), payloadSize([][]byte{m}), n)
	}
	require.EqualValues(t, 30+3*MessageOverhead, cost(30, 3))
}
