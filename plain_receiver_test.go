package buffstreams

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/sender"
	"github.com/buffstreams/watermill-buffstreams/internal/netio"
)

// What was handled or refused takes no room and is nothing that a Close has to answer for, also where a message had to wait for
// room and found a part of it.
func TestPlainReceiver_GivesRoomBack(t *testing.T) {
	pub, sub, address := plainPair(t, nil, nil, AckedConfig{WindowBytes: 1000, MaxMessageSize: 900})
	sub.cfg.Unmarshaler = unmarshalFunc(func(data []byte) (*message.Message, error) {
		if data[0] == 'x' {
			return nil, errBlocked
		}
		return message.NewMessage("", data), nil
	})
	out, err := sub.Subscribe(context.Background(), "127.0.0.1:0")
	require.NoError(t, err)
	for _, text := range []string{"1", "2", "x", "3"} { // each is more than half of the window
		require.NoError(t, pub.Publish(address, textMessage(strings.Repeat(text, 600))))
	}
	for range 3 {
		(<-out).Ack()
	}
	l, err := sub.listen(destination{target: anyPort})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, s := fresh(pub, sub)
		topic := s.Listeners[0].Topics[0]
		return s.Listeners[0].Rejected == 1 && topic.Held == 0 && topic.HeldBytes == 0 && l.OnlyCopies() == 0
	}, 30*time.Second, time.Millisecond)
	require.NoError(t, pub.Close())
	require.NoError(t, sub.Close())
}

// The groups that are declared for plain peers have to be there before they are listened to.
func TestPlainReceiver_WaitsForDeclaredGroups(t *testing.T) {
	pub, sub, address := plainPair(t, nil, nil, AckedConfig{Groups: map[string][]string{"": {"billing"}}})
	sub.cfg.ConsumerGroup = "other"
	out, err := sub.Subscribe(context.Background(), "127.0.0.1:0")
	require.NoError(t, err)
	look, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorContains(t, sub.Ready(look), `waits for declared groups: ["billing"]`)
	require.NoError(t, pub.Publish(address, textMessage("order")))
	sub.cfg.ConsumerGroup = "billing"
	billing, err := sub.Subscribe(context.Background(), "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, sub.Ready(look))
	(<-out).Ack()
	(<-billing).Ack()
}

// Peers that were dialed once and are away are forgotten when there are many; those that are there are not.
func TestPlainPeers_AreBounded(t *testing.T) {
	peers, told := plainPeers{}, &plainHooks{}
	at := func(i int) netio.Target {
		return netio.Target{Network: "tcp", Address: "127.0.0.1:" + string(rune('a'+i))}
	}
	for i := range 10 {
		peers.of(at(i), told).become(sender.Ready, nil)
	}
	for i := range 3 * maxFailedPeers {
		peers.of(at(10+i), told).become(sender.Failed, ErrTimeout)
	}
	require.LessOrEqual(t, len(peers.by), maxFailedPeers)
	for i := range 10 {
		require.Equal(t, sender.Ready, peers.of(at(i), told).stateNow())
	}
}
