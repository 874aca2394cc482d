package receiver

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// TestReceiver_CloseWaitsUntilAcksAreRead: what is acked before Close comes before the last ping, and the connection stands until
// the peer has answered that, closes its side, or has had its time. What the peer still sends resets nothing.
func TestReceiver_CloseWaitsUntilAcksAreRead(t *testing.T) {
	for name, answers := range map[string]bool{"the peer answers": true, "the peer closes": false} {
		t.Run(name, func(t *testing.T) {
			r := listen(t, Config{})
			member := join(r, "a")
			s := comeFrom(t, "127.0.0.1", r.Addr().String())
			s.welcomed()
			s.write(&wire.Frame{Body: &wire.Frame_Open{Open: openOf(1)}})
			s.credit().publish(1)
			d, _, ok := member.Take()
			require.True(t, ok)
			member.Settle(d)
			began, closed := time.Now(), make(chan struct{})
			go func() { // ends with Close
				_ = r.Close(context.Background())
				close(closed)
			}()
			var settled bool
			for f := s.next(); f.GetPing().GetId() != farewellPing; f = s.next() {
				require.NotNil(t, f)
				settled = settled || f.GetAck() != nil && len(f.GetAck().GetSettled()) > 0
			}
			require.True(t, settled, "the ack comes first")
			for range 20 { // what would reset the connection
				s.write(&wire.Frame{Body: &wire.Frame_Ping{Ping: &wire.Ping{Id: 7}}})
			}
			s.write(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: goawayPing}}})
			select {
			case <-closed:
				require.Fail(t, "no one has said that the ack was read")
			case <-time.After(20 * time.Millisecond): // real time: nothing is to happen
			}
			if answers {
				s.write(&wire.Frame{Body: &wire.Frame_Pong{Pong: &wire.Pong{Id: farewellPing}}})
			} else {
				require.NoError(t, s.conn.Close())
			}
			<-closed
			require.Less(t, time.Since(began), farewellTime, "no time-out ended it")
		})
	}
}

// TestReceiver_CloseWaitsForASilentPeerNoLongerThanASecond, however many there are.
func TestReceiver_CloseWaitsForASilentPeerNoLongerThanASecond(t *testing.T) {
	r := listen(t, Config{})
	const peers = 20
	for range peers {
		s := comeFrom(t, "127.0.0.1", r.Addr().String())
		s.welcomed()
	}
	began := time.Now()
	require.NoError(t, r.Close(context.Background()))
	require.Less(t, time.Since(began), peers*farewellTime/2)
	require.GreaterOrEqual(t, time.Since(began), farewellTime)
}
