package buffstreams

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Only what an ephemeral stream has lost with its topic is dropped and counted; all else that is refused is a failure. OnFailure
// is told of both.
func TestPublisher_DropsOnlyWhatItsTopicTookAlong(t *testing.T) {
	for _, ephemeral := range []bool{false, true} {
		for _, code := range []wire.Code{wire.Code_CODE_TOPIC_GONE, wire.Code_CODE_FAILED} {
			p := newTestPublisher(t, EnvelopeMarshaler{})
			told := make(chan string, 1)
			p.failures.hook = func(topic string, encoded []byte, _ error) { told <- topic + " " + string(encoded) }
			p.onRefused("127.0.0.1:1", session.Refused{
				Topic: "orders", Message: []byte("order"), Err: session.NewPeerError(code, "no"), Ephemeral: ephemeral,
			})
			require.Equal(t, "orders order", <-told)
			dropped := p.dropped.Load() == 1
			require.Equal(t, ephemeral && code == wire.Code_CODE_TOPIC_GONE, dropped)
			require.NoError(t, p.Close())
		}
	}
}
