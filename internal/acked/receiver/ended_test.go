package receiver

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/framing"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

// written decodes the frames that a connection has written. The flusher must have nothing more to do.
func written(t *testing.T, c *conn) (frames []any) {
	t.Helper()
	c.flusher.Close()
	reader := framing.NewReader(bytes.NewReader(c.nc.(*testkit.ScriptedConn).Written()), c.receiver.codec)
	for {
		payload, err := reader.Next()
		if err != nil {
			return frames
		}
		payload, err = c.enc.Verify(payload)
		require.NoError(t, err)
		frame, err := session.Decode(payload)
		require.NoError(t, err)
		frames = append(frames, frame)
	}
}

// endTopic publishes three messages to an ephemeral topic, acks the second and ends the topic. disconnect may end the
// connection in between.
func endTopic(t *testing.T, r *Receiver, disconnect bool) *conn {
	t.Helper()
	m := r.EphemeralTopic("a").Join("", func() {})
	open := openOf(1)
	open.WantMessages, open.WantBytes = 3, 100
	c := opens(t, r, open)
	require.NoError(t, c.handles[1].publish(c, &session.PublishFrame{
		Handle: 1, First: 1, Messages: [][]byte{{1}, {2}, {3}}, Bytes: 9,
	}))
	first, _, _ := m.Take()
	second, _, ok := m.Take()
	require.True(t, ok)
	if disconnect {
		c.terminate(nil)
	}
	m.Settle(second)
	m.Return(first)
	m.Leave()
	return c
}

// requireEnd looks at the last frames of a connection: the second message is settled, and then the stream is refused.
func requireEnd(t *testing.T, frames []any, settledBy func(frame any) []uint64) {
	t.Helper()
	require.GreaterOrEqual(t, len(frames), 2)
	require.Equal(t, []uint64{2, 2}, settledBy(frames[len(frames)-2]))
	refused, ok := frames[len(frames)-1].(*wire.Reject)
	require.True(t, ok)
	require.Zero(t, refused.Sequence)
	require.Equal(t, wire.Code_CODE_TOPIC_GONE, refused.Code)
}

func TestStream_AcksGoBeforeItsEnd(t *testing.T) {
	r := listen(t, Config{})
	c := endTopic(t, r, false)
	requireEnd(t, written(t, c), func(frame any) []uint64 {
		ack := frame.(*session.AckFrame)
		require.LessOrEqual(t, ack.Next, uint64(4))
		return ack.Settled
	})
	require.Equal(t, 1, r.streamCount, "the sender may not have read it")
	s := c.handles[1]
	s.mu.Lock()
	s.kept.Store(true)
	answer := s.keepUnheardLocked(3, dispatch.Refusal{Bytes: 9, Unheard: func() { t.Error("the sender answers for it") }})
	s.mu.Unlock()
	require.Nil(t, answer)
	c.release(1)
	require.Zero(t, r.streamCount)
	require.Empty(t, r.publishers)
	require.Zero(t, r.unheardBytes.Load())
}

// A sender whose connection was lost before the end hears of both when it comes back.
func TestStream_ThatEndedAnswersItsSenderThatWasAway(t *testing.T) {
	r := listen(t, Config{})
	endTopic(t, r, true)
	again := opens(t, r, openOf(1))
	requireEnd(t, written(t, again), func(frame any) []uint64 {
		opened := frame.(*wire.Opened)
		require.Zero(t, opened.Code)
		require.GreaterOrEqual(t, opened.Next, uint64(3))
		return opened.Settled
	})
	again.release(1)
	require.Zero(t, r.streamCount)
}

// A sender that never comes back is forgotten with the name of the topic, or when its place is needed.
func TestReceiver_ForgetsStreamsThatEnded(t *testing.T) {
	r := listen(t, Config{ForgetAfter: time.Nanosecond})
	endTopic(t, r, true)
	r.mu.Lock()
	gone, count := r.gone.has("a", time.Now()), r.streamCount
	r.mu.Unlock()
	require.False(t, gone)
	require.Zero(t, count)

	r = listen(t, Config{MaxStreams: 1})
	endTopic(t, r, true)
	other := openOf(2)
	other.Topic = "b"
	_, _, refused := r.open(other, "")
	require.Nil(t, refused)
	require.Equal(t, 1, r.streamCount)
}

// What a sender that never came back was not told to be rejected is answered for when the end of another topic shows that
// its time is over.
func TestReceiver_AnswersForTopicsThatEndedLongAgo(t *testing.T) {
	r := listen(t, Config{ForgetAfter: time.Nanosecond})
	r.EphemeralTopic("a").Join("", func() {})
	c := opens(t, r, openOf(1))
	s, called := c.handles[1], 0
	s.mu.Lock()
	require.Nil(t, s.keepUnheardLocked(1, dispatch.Refusal{Unheard: func() { called++ }, Bytes: 1}))
	s.mu.Unlock()
	r.topicEnded(s.topic, 0)
	require.Zero(t, called)
	r.topicEnded(r.EphemeralTopic("b"), 0)
	require.Equal(t, 1, called)
	c.terminate(nil)
}

// The topic exists again: the stream goes on, and what was acked is not taken twice.
func TestStream_ThatEndedGoesOnWithATopicThatExistsAgain(t *testing.T) {
	r := listen(t, Config{})
	endTopic(t, r, true)
	m := r.EphemeralTopic("a").Join("", func() {})
	open := openOf(1)
	open.WantMessages, open.WantBytes = 3, 100
	c := opens(t, r, open)
	for _, seq := range []uint64{1, 3} {
		require.NoError(t, c.handles[1].publish(c, &session.PublishFrame{
			Handle: 1, First: seq, Gap: seq == 3, Messages: [][]byte{{byte(seq)}}, Bytes: 3,
		}))
		d, _, ok := m.Take()
		require.True(t, ok)
		_, got := d.Origin()
		require.Equal(t, seq, got)
	}
	require.Equal(t, 1, r.streamCount)
	opened := written(t, c)[0].(*wire.Opened)
	require.Equal(t, []uint64{2, 2}, opened.Settled)
}

func TestReceiver_RetiresTopicsThatNobodyUses(t *testing.T) {
	r := listen(t, Config{Groups: map[string][]string{"declared": {"g"}}})
	topics := func() (names []string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for name := range r.topics {
			names = append(names, name)
		}
		return names
	}
	r.Topic("a").Join("", func() {}).Leave()
	require.Empty(t, topics(), "no publisher, no subscription")
	m := r.Topic("a").Join("", func() {})
	c := opens(t, r, openOf(1))
	m.Leave()
	require.Equal(t, []string{"a"}, topics(), "a publisher is there")
	c.release(1)
	require.Empty(t, topics())
	r.Topic("declared").Drop("g")
	require.Equal(t, []string{"declared"}, topics(), "it would be declared anew")
}

func TestReceiver_HoldsNewTopicsClosed(t *testing.T) {
	r := listen(t, Config{})
	open := func(topic string, publisher byte) *conn {
		o := openOf(publisher)
		o.Topic = topic
		return opens(t, r, o)
	}
	credit := func(c *conn) bool {
		s := c.handles[1]
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.in.Outstanding().Messages > 0
	}
	r.Topic("before").Join("g", func() {})
	r.Hold(true)
	r.Topic("after").Join("g", func() {})
	before, after := open("before", 1), open("after", 2)
	require.True(t, credit(before), "it had given credit")
	require.False(t, credit(after))
	r.Hold(false)
	require.True(t, credit(after))
}
