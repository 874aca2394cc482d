package pool

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
)

// framesOf makes frames of messages.
func framesOf(t *testing.T, codec framing.Codec, messages ...string) (frames []byte) {
	t.Helper()
	for _, m := range messages {
		var err error
		frames, err = codec.AppendHeader(frames, len(m))
		require.NoError(t, err)
		frames = append(frames, m...)
	}
	return frames
}

// A handler may append to the message that it got, which does not reach into the next one.
func TestFailureQueue_EachMessageIsItsHandlersOwn(t *testing.T) {
	testkit.CheckLeaks(t)
	codec, got := must(framing.NewVarint(100)), make(chan string, 2)
	q := failureQueue{codec: codec, abandon: make(chan struct{}), cfg: WriterConfig{OnFailure: func(f Failure) {
		got <- string(f.Payload)
		_ = append(f.Payload, "!!"...)
	}}}
	q.push(framesOf(t, codec, "first", "second"), errors.New("down"))
	require.Zero(t, q.finish(time.Minute))
	require.Equal(t, "first", <-got)
	require.Equal(t, "second", <-got)
}

// Of what was not handed over in time, those are counted that were not.
func TestFailureQueue_CountsWhatIsLeft(t *testing.T) {
	testkit.CheckLeaks(t)
	codec, got := must(framing.NewVarint(100)), make(chan Failure)
	q := failureQueue{codec: codec, abandon: make(chan struct{}), cfg: WriterConfig{Failures: got}}
	q.push(framesOf(t, codec, "first", "second", "third"), errors.New("down"))
	require.Equal(t, "first", string(testkit.Receive(t, got).Payload))
	require.Equal(t, 2, q.finish(10*time.Millisecond))
}
