package receiver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// by is an Open of publisher 1, in an epoch and by an incarnation; 0: it tells none.
func by(epoch uint64, id byte) *wire.Open {
	f := openOf(1)
	f.Epoch = epoch
	if id > 0 {
		f.Incarnation = append([]byte{id}, make([]byte, 15)...)
	}
	return f
}

func incarnation(epoch uint64, id byte) session.Incarnation {
	return session.Incarnation{Epoch: epoch, ID: [16]byte{id}}
}

// lineages is a Receiver whose answers to Opens are looked at.
type lineages struct {
	*Receiver
	t  *testing.T
	ln *testkit.PipeListener
}

func newLineages(t *testing.T, cfg Config) *lineages {
	ln := testkit.NewPipeListener()
	r := start(t, cfg, ln)
	r.Topic("a").Join("g", func() {})
	return &lineages{r, t, ln}
}

// open sends an Open on a connection of its own, and returns the code of the answer, and who has sent last.
func (l *lineages) open(f *wire.Open) (stranger, wire.Code, session.Incarnation) {
	l.t.Helper()
	s := stranger{l.t, l.ln.Connect()}
	l.t.Cleanup(func() { _ = s.conn.Close() })
	require.NoError(l.t, s.conn.SetDeadline(time.Now().Add(10*time.Second)))
	s.welcomed()
	s.write(&wire.Frame{Body: &wire.Frame_Open{Open: f}})
	opened := s.next().GetOpened()
	require.NotNil(l.t, opened)
	return s, opened.Code, session.IncarnationOf(opened.LastEpoch, opened.LastIncarnation)
}

func (s stranger) write(f *wire.Frame) {
	s.t.Helper()
	_, err := s.conn.Write(sealed(s.t, f))
	require.NoError(s.t, err)
}

// publish sends a message, and waits until it is received.
func (s stranger) publish(seq uint64) {
	s.t.Helper()
	s.write(&wire.Frame{Body: &wire.Frame_Publish{Publish: &wire.Publish{Handle: 1, First: seq, Messages: [][]byte{{1}}}}})
	for f := s.next(); f.GetAck().GetNext() != seq+1; f = s.next() {
		require.NotNil(s.t, f)
	}
}

// credit waits until a message may be sent.
func (s stranger) credit() stranger {
	s.t.Helper()
	for f := s.next(); f.GetAck().GetCreditMessages() == 0; f = s.next() {
		require.NotNil(s.t, f)
	}
	return s
}

// An Opened says who has last sent a frame behind Open. An Open alone changes that only where its base does.
func TestReceiver_SaysWhoHasSentLast(t *testing.T) {
	l := newLineages(t, Config{})
	none := session.Incarnation{}
	_, _, last := l.open(by(1, 1))
	require.Equal(t, none, last)
	s, _, last := l.open(by(1, 2))
	require.Equal(t, none, last, "the first one has sent nothing")
	s.credit().publish(1)
	third := by(1, 3)
	third.Base = 2 // all below was received
	_, _, last = l.open(third)
	require.Equal(t, incarnation(1, 2), last)
	_, _, last = l.open(by(1, 4))
	require.Equal(t, incarnation(1, 2), last, "nor has the third")

	s, _, last = l.open(by(2, 5))
	require.Equal(t, incarnation(1, 2), last)
	s.credit().publish(2)
	_, _, last = l.open(by(2, 0))
	require.Equal(t, incarnation(2, 5), last)
	f := by(2, 6)
	f.Base = 9 // what the others have sent between is lost with this
	_, _, last = l.open(f)
	require.Equal(t, incarnation(2, 5), last)
	s, _, last = l.open(by(2, 0))
	require.Equal(t, incarnation(2, 6), last)
	s.credit().publish(9)
	_, _, last = l.open(by(2, 7))
	require.Equal(t, incarnation(2, 0), last, "one that has no incarnations")
}

// Who confirms a rejection has changed what is known: the message is not rejected any more for any other.
func TestReceiver_SaysWhoHasConfirmedLast(t *testing.T) {
	r := listen(t, Config{})
	c := opens(t, r, by(1, 1))
	require.Zero(t, c.handles[1].publisher.lastSender())
	c.handles[1].rejectSeen(1)
	require.Equal(t, incarnation(1, 1), c.handles[1].publisher.lastSender())
	c.terminate(nil)
}

// A stream that is new, and one that no other has changed, say who has sent on another stream: the publisher is the same.
func TestReceiver_SaysWhoHasSentOnAnotherStream(t *testing.T) {
	l := newLineages(t, Config{})
	s, _, _ := l.open(by(1, 1))
	s.credit().publish(1)
	f := by(1, 2)
	f.Stream, f.Topic = 2, "b"
	_, _, last := l.open(f)
	require.Equal(t, incarnation(1, 1), last)
}

// A fenced sender learns by whom, but not without the secret.
func TestReceiver_SaysWhoFences(t *testing.T) {
	l := newLineages(t, Config{})
	s, _, _ := l.open(by(3, 1))
	s.credit().publish(1)
	_, code, last := l.open(by(2, 2))
	require.Equal(t, wire.Code_CODE_FENCED, code)
	require.Equal(t, incarnation(3, 1), last)
	_, _, _ = l.open(by(5, 3)) // and sends nothing
	_, code, last = l.open(by(4, 2))
	require.Equal(t, wire.Code_CODE_FENCED, code)
	require.Equal(t, incarnation(5, 0), last)
	f := by(2, 2)
	f.Secret = append([]byte{9}, make([]byte, 15)...)
	_, code, last = l.open(f)
	require.Equal(t, wire.Code_CODE_FENCED, code)
	require.Equal(t, session.Incarnation{}, last)
}

// A store remembers who has sent last. One that keeps positions alone may know no epoch, and one that knows no incarnation
// says nothing.
func TestReceiver_RestoresWhoHasSentLast(t *testing.T) {
	id := store.StreamID{Publisher: [16]byte{1}, Stream: 1, Topic: "a"}
	for _, c := range []struct {
		stored store.StreamState
		last   session.Incarnation
	}{
		{store.StreamState{Epoch: 3, Incarnation: [16]byte{7}}, incarnation(3, 7)},
		{store.StreamState{Incarnation: [16]byte{7}}, incarnation(1, 7)},
		{store.StreamState{Epoch: 3}, session.Incarnation{}},
	} {
		l := newLineages(t, Config{Dedupe: remembered{id: c.stored}})
		_, _, last := l.open(by(3, 8))
		require.Equal(t, c.last, last)
	}

	m := newMemoryStore()
	r := listen(t, Config{Dedupe: m})
	member := r.Topic("a").Join("g", func() {})
	c := opens(t, r, by(3, 7))
	publish1(t, c, 1)
	opens(t, r, by(3, 8)) // takes the stream over, and sends nothing
	d, _, ok := member.Take()
	require.True(t, ok)
	member.Settle(d)
	require.Equal(t, [16]byte{7}, m.states[id].Incarnation)
}

// Who is refused for another reason than its epoch is not told of a newer one.
func TestReceiver_SaysNothingOfANewerEpochWhereThereIsNone(t *testing.T) {
	r := listen(t, Config{})
	c := opens(t, r, by(2, 1))
	for epoch, newest := range map[uint64]uint64{1: 2, 2: 0, 3: 0} {
		answer := &wire.Opened{}
		r.addFence(answer, by(epoch, 2), "")
		require.Equal(t, newest, answer.LastEpoch)
	}
	c.terminate(nil)
}
