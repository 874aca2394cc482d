package tests

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// The example of a stream that is revoked. Message 2 is in the channel of a subscription that does not read it: no handler
// has it.
func TestProtocol_DocumentedRevoke(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	frames := documentedFrames(t, "move")
	require.Len(t, frames, 4)
	p := dialPeer(t, h.address)
	p.write(frames[0].bytes)
	welcome := take[*wire.Welcome](p)
	require.Equal(t, []string{"move"}, welcome.Features)
	require.Len(t, welcome.Instance, 16)

	p.send(&wire.Open{
		Handle: 1, Publisher: bytes.Repeat([]byte{0xc1}, 16), Epoch: 1, Secret: bytes.Repeat([]byte{0xd1}, 16), Stream: 101, Topic: "a",
		Base: 1, WantMessages: 3, WantBytes: 300, LeastBytes: 10, Tenure: 1,
	})
	take[*wire.Opened](p)
	for credit := take[*wire.Ack](p); credit.CreditMessages < 3; credit = take[*wire.Ack](p) {
	}
	p.send(&wire.Publish{Handle: 1, First: 1, Messages: [][]byte{envelope(t, "1"), envelope(t, "2"), envelope(t, "3")}})
	receivePayload(t, messages, "1").Ack()
	for len(take[*wire.Ack](p).Settled) == 0 {
	}
	p.write(frames[1].bytes)
	for {
		got, err := p.readFrame()
		require.NoError(t, err)
		if f, ok := decodeFrame(t, got).(*wire.Returned); !ok || f.InHand > 0 { // 2 comes back from the channel
			continue
		}
		require.Equal(t, hex.EncodeToString(frames[2].bytes), hex.EncodeToString(got))
		break
	}
	p.write(frames[3].bytes)
	p.send(&wire.Ping{Id: 5})
	require.EqualValues(t, 5, take[*wire.Pong](p).Id)

	p.send(&wire.Revoke{
		Handle: 2, Publisher: bytes.Repeat([]byte{0xc1}, 16), Epoch: 1, Secret: bytes.Repeat([]byte{0xd1}, 16), Stream: 101, Topic: "a", Tenure: 2,
	})
	require.Zero(t, take[*wire.Returned](p).Next, "it has forgotten the stream")
	require.Empty(t, messages)
}

func TestProtocol_DocumentedFaultsOfMoves(t *testing.T) {
	for row, want := range map[string]string{
		"Publish in a stream that was revoked": "Failure", "Revoke without the feature, or with handle 0": "Failure",
		"Open with a tenure below the stream's": "Opened", "Want in a stream that was revoked": "ignored",
	} { // testdata/vectors has them
		outcome, _ := documentedFault(t, row)
		require.Equal(t, want, outcome)
	}
}
