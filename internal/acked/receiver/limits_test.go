package receiver

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// Topics end faster than the time passes for which they are remembered: no more are than the limit, the youngest, and
// the streams of the others are forgotten with them.
func TestTombstones_KeepTheYoungestUpToTheLimit(t *testing.T) {
	topic := func(i int) *dispatch.Topic {
		w := flow.NewWindow(flow.Amount{Messages: 1, Bytes: 1}, flow.NewBudget(1))
		return dispatch.NewTopic(fmt.Sprint(i), w, func(n int) int { return n })
	}
	var forgotten []string
	stones := tombstones{forgotten: func(t *dispatch.Topic) { forgotten = append(forgotten, t.Name()) }}
	const limit = 3
	now := time.Now()
	for i := range 10 {
		stones.add(topic(i), false, now, time.Hour, limit)
		require.LessOrEqual(t, len(stones.order), limit)
		require.Len(t, forgotten, max(0, i+1-limit))
	}
	require.False(t, stones.has("6", now))
	require.True(t, stones.has("7", now))

	stones.add(topic(7), false, now.Add(time.Minute), time.Hour, limit) // 7 again, in place of the first 7
	require.True(t, stones.has("7", now), "the younger one has the name")
	require.False(t, stones.has("9", now.Add(time.Hour)))
	require.True(t, stones.has("7", now.Add(time.Hour)))
	require.False(t, stones.has("7", now.Add(time.Hour+time.Minute)))
	require.Empty(t, stones.order)
	require.Empty(t, stones.until)
	require.Len(t, forgotten, 11)
}

// A sender opens a stream that it has open already with another handle: the old handle is free again, and counts no
// more for the limit of streams.
func TestConn_AStreamThatIsOpenedAnewHasOneHandle(t *testing.T) {
	r := listen(t, Config{MaxTopics: 2})
	join(r, "a")
	c := opens(t, r, openOf(1))
	for handle := range uint64(10) {
		o := openOf(1)
		o.Handle = handle + 2
		if handle >= 5 { // it has been elsewhere in between
			o.Tenure = handle
		}
		require.NoError(t, c.open(o))
		require.Len(t, c.handles, 1)
		require.NotNil(t, c.handles[o.Handle])
		require.EqualValues(t, 1, c.attached.Load())
	}
	require.Error(t, c.handle(&wire.RejectSeen{Handle: 1}), "no stream has it")
	require.Equal(t, 1, r.streamCount)
	c.terminate(nil)
}

// A peer that confirms no rejection is cut off when too many have gathered, and not before.
func TestStream_CutsOffAPeerThatConfirmsNoRejection(t *testing.T) {
	r := listen(t, Config{WindowMessages: 1})
	join(r, "a")
	c := opens(t, r, openOf(1))
	s := c.handles[1]
	reject := func(seq uint64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.rejectLocked(seq, wire.Code_CODE_FAILED, "no")
	}
	open := func() bool {
		_, err := c.nc.Read(make([]byte, 1))
		return err != net.ErrClosed //nolint:errorlint // what a ScriptedConn returns
	}
	for seq := range uint64(maxUnconfirmed) {
		reject(seq + 1)
	}
	require.True(t, open())
	s.rejectSeen(1)
	reject(maxUnconfirmed + 1)
	require.True(t, open(), "one was confirmed")
	reject(maxUnconfirmed + 2)
	require.False(t, open())
	c.terminate(nil)
}

// A frame that cannot be encoded would be missing from then on: the connection ends.
func TestConn_EndsWithAFrameThatCannotBeEncoded(t *testing.T) {
	r := listen(t, Config{})
	nc := testkit.NewScriptedConn(nil)
	c := newConn(r, nc)
	c.send(&wire.Frame{Body: &wire.Frame_Failure{Failure: &wire.Failure{Reason: "\xff"}}})
	c.flusher.Close()
	_, err := nc.Read(make([]byte, 1))
	require.ErrorIs(t, err, net.ErrClosed)
	require.Empty(t, nc.Written())
}

// A reason of any length, cut in the middle of a character or not, fits into a frame.
func TestTruncate_FitsAFrame(t *testing.T) {
	require.Equal(t, "short", truncate("short", 5))
	for n := range 9 {
		text := truncate(strings.Repeat("é", 100), n)
		require.True(t, utf8.ValidString(text))
		require.LessOrEqual(t, len(text), n+2)
		require.Len(t, []rune(text), (n+1)/2)
	}
}

// A topic has just ended, and is not removed yet, when it is asked for again: that is another topic.
func TestReceiver_ATopicThatHasJustEndedIsNotGivenOut(t *testing.T) {
	r := listen(t, Config{})
	old := r.Topic("a")
	var next *dispatch.Topic
	old.MakeEphemeral(func(dropped int) {
		next = r.EphemeralTopic("a")
		r.topicEnded(old, dropped)
	})
	old.Join("", func() {}).Leave()
	require.NotSame(t, old, next)
	require.False(t, next.Ended())
	require.Same(t, next, r.Topic("a"), "the end of the old one has not removed it")
}
