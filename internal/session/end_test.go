package session

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// A stream that ends gives up what its sender need not know as received, but nothing that it rejects: a sender that opens the
// stream again takes a rejection of what it has not sent for a violation.
func TestInbound_EndKeepsWhatItRejects(t *testing.T) {
	in := NewInbound(1)
	in.Attach(1, 1)
	in.Grant(Amount{Messages: 4, Bytes: 100})
	_, _, _, err := in.Accept(&PublishFrame{Handle: 1, First: 1, Messages: [][]byte{{1}, {2}, {3}, {4}}, Bytes: 8})
	require.NoError(t, err)
	in.Reject(3, NewPeerError(wire.Code_CODE_FAILED, "nacked"))
	in.End()
	require.Equal(t, uint64(4), in.Next())
	in.Detach()
	opened, rejects := in.Attach(2, 1)
	require.Equal(t, uint64(4), opened.Next)
	require.Len(t, rejects, 1)
	require.Less(t, rejects[0].Sequence, opened.Next)
}
