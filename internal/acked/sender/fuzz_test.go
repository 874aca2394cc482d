package sender

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/acked/acktest"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// fuzzMemory is small, so that a short input reaches it.
const fuzzMemory = 64 << 10

// FuzzSender has a listener say anything to a Sender that has messages for it. The connection ends, the Sender lives on
// until it is closed, and then nothing is missing from the budget.
func FuzzSender(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 1, 0, 1, 2, 1, 0, 9, 30, 1, 3, 3, 0, 0, 1, 5, 1})
	f.Add([]byte{1, 5, 0, 6, 1, 1, 7, 1, 1, 8, 3})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 2000 {
			t.Skip("long")
		}
		script := &acktest.Script{T: t, Enc: acktest.FuzzEncoder(t), In: data}
		if script.Byte()%8 != 0 {
			script.Control(&wire.Frame{Body: &wire.Frame_Welcome{Welcome: &wire.Welcome{
				Version: 1, MaxFrame: 1 << 17, MaxMessage: 1024, Features: []string{session.FeatureMove}, Instance: make([]byte, 16),
			}}})
		}
		for range min(40, len(script.In)) {
			script.Listener()
		}
		conn := testkit.NewScriptedConn(script.Out)
		dialed := make(chan net.Conn, 1)
		dialed <- conn
		budget := flow.NewBudget(fuzzMemory)
		var mover Mover
		s := start(t, Config{
			MoveAfter: time.Hour, Mover: &mover,
			MaxMessageSize: 1024, WindowMessages: 40, WindowBytes: 4 << 10, Budget: budget, HandshakeTimeout: time.Hour,
			Dial: func(context.Context, string, string) (net.Conn, error) {
				select {
				case c := <-dialed:
					return c, nil
				default:
					return nil, testkit.ErrNetworkDown
				}
			},
		})
		for _, topic := range []string{"a", "b"} {
			_, _, err := s.Publish(context.Background(), topic, acktest.BatchOf(t, "one", "two", "three"), 0, 0)
			if err != nil { // the connection has ended the stream already
				var refused *session.PeerError
				require.ErrorAs(t, err, &refused)
			}
		}
		to := start(t, Config{Budget: budget, MoveAfter: time.Hour, Mover: &mover, Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, testkit.ErrNetworkDown
		}})
		st := s.NewStream(StreamConfig{Topic: "c"})
		_, _, _ = st.Publish(context.Background(), acktest.BatchOf(t, "one", "two", "three"), 0, 0)
		st.MoveTo(to)
		conn.AwaitClose(t)
		s.Close()
		to.Close()
		require.Equal(t, fuzzMemory, budget.Free(), "the budget has everything back")
	})
}
