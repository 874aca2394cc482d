package receiver

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// openOf is an Open of a publisher that has only one stream.
func openOf(publisher byte) *wire.Open {
	id := make([]byte, 16)
	id[0] = publisher
	return &wire.Open{
		Handle: 1, Publisher: id, Secret: make([]byte, 16), Epoch: 1, Stream: 1, Topic: "a", Base: 1,
		WantMessages: 1, WantBytes: 100, LeastBytes: 1,
	}
}

// opens is what a connection does with an Open.
func opens(t *testing.T, r *Receiver, o *wire.Open) *conn {
	t.Helper()
	c := newConn(r, testkit.NewScriptedConn(nil))
	r.mu.Lock()
	r.conns[c] = struct{}{}
	require.Empty(t, r.counts.add(c.host, &r.cfg))
	r.mu.Unlock()
	require.NoError(t, c.open(o))
	return c
}

// Between the moment at which an Open finds its stream and that at which it attaches it, another publisher may need
// room: the stream would be forgotten, and what it receives would come again at the next connection.
func TestReceiver_EvictsNoStreamThatIsBeingOpened(t *testing.T) {
	r := listen(t, Config{MaxStreams: 1})
	s, _, refused := r.open(openOf(1), "")
	require.Nil(t, refused)
	_, _, refused = r.open(openOf(2), "")
	require.NotNil(t, refused)
	require.Equal(t, wire.Code_CODE_LIMIT, session.CodeOf(refused))
	again, _, refused := r.open(openOf(1), "")
	require.Nil(t, refused)
	require.Same(t, s, again)
}

// A publisher comes back before its old connection is known to be dead, to a topic that has no group yet. When a group
// joins, it gets credit: the end of the old connection must not have removed the stream.
func TestStream_OutlivesTheConnectionThatLostIt(t *testing.T) {
	r := listen(t, Config{})
	old := opens(t, r, openOf(1))
	now := opens(t, r, openOf(1))
	old.terminate(nil)
	r.Topic("a").Join("g", func() {})
	s := now.handles[1]
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotZero(t, s.in.Outstanding(), "credit")
}

// A peer that never confirms a rejection, and goes, must not keep its place from others for ever.
func TestReceiver_EvictsUnconfirmedRejections(t *testing.T) {
	r := listen(t, Config{MaxPublishers: 1})
	m := r.Topic("a").Join("g", func() {})
	c := opens(t, r, openOf(1))
	require.NoError(t, c.handles[1].publish(c, &session.PublishFrame{Handle: 1, First: 1, Messages: [][]byte{{1}}, Bytes: 3}))
	d, _, ok := m.Take()
	require.True(t, ok)
	_, _, refused := r.open(openOf(2), "")
	require.NotNil(t, refused, "what is not handled is kept")
	c.terminate(nil)
	_, _, refused = r.open(openOf(2), "")
	require.NotNil(t, refused, "what is not handled is kept")
	m.Refuse(d, dispatch.Refusal{Undecodable: true})
	require.Eventually(t, func() bool { // it does not look at every Open
		_, _, refused := r.open(openOf(2), "")
		return refused == nil
	}, 30*time.Second, time.Millisecond)
}

// While every place is taken by a publisher that is connected, finding that out must not be the cost of each refusal:
// the Receiver looks again only after a while.
func TestReceiver_LooksForRoomOnceInAWhile(t *testing.T) {
	r := listen(t, Config{MaxPublishers: 1})
	s, _, refused := r.open(openOf(1), "")
	require.Nil(t, refused)
	begin := time.Now()
	_, _, refused = r.open(openOf(2), "")
	require.NotNil(t, refused)
	require.True(t, r.noEvictionBefore.After(begin))
	s.opens = 0 // it could be forgotten now
	r.noEvictionBefore = begin.Add(time.Hour)
	_, _, refused = r.open(openOf(2), "")
	require.NotNil(t, refused)
	r.noEvictionBefore = begin
	_, _, refused = r.open(openOf(2), "")
	require.Nil(t, refused)
}

// A stream that shares its topic with many keeps little credit, which would be of no use to one that sends more at a
// time: it would have to ask all the same, and to send back what it was given.
func TestStream_KeepsUpNoCreditThatIsTooLittle(t *testing.T) {
	r := listen(t, Config{WindowMessages: 6400})
	r.Topic("a").Join("g", func() {})
	for publisher := byte(1); publisher < 16; publisher++ {
		o := openOf(publisher)
		o.WantMessages = 0
		opens(t, r, o)
	}
	c := opens(t, r, openOf(16))
	s, sent := c.handles[1], uint64(0)
	outstanding := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.in.Outstanding().Messages
	}
	const kept = 6400 / 2 / 16
	for _, burst := range []uint64{1, kept, kept + 1, 250, 1} {
		ask := func() { s.want(c, sent+uint64(outstanding()), burst, 10*burst, 10) }
		for ask(); outstanding() < int(burst); ask() { // a grant may have crossed it
		}
		for range outstanding() {
			sent++
			require.NoError(t, s.publish(c, &session.PublishFrame{Handle: 1, First: sent, Messages: [][]byte{{1}}, Bytes: 3}))
		}
		s.appendAcks(c, nil)
		require.Equal(t, burst <= kept, outstanding() > 0, "burst %d", burst)
	}
}

// A publisher whose first stream needs room that others give up is remembered: it has no stream while they are evicted.
func TestReceiver_EvictionSparesThePublisherThatNeedsTheRoom(t *testing.T) {
	r := listen(t, Config{MaxStreams: 1})
	open := func(id byte) *stream {
		publisher := make([]byte, 16)
		publisher[0] = id
		s, _, refused := r.open(&wire.Open{Publisher: publisher, Secret: make([]byte, 16), Epoch: 1, Stream: 1, Topic: "a", Base: 1}, "")
		require.Nil(t, refused)
		s.opens = 0 // as if it had been attached, and its publisher had gone
		return s
	}
	open(1)
	second := open(2)
	require.Same(t, second, open(2))
}

// remembered is a DedupeStore that knows what an earlier life has saved.
type remembered map[store.StreamID]store.StreamState

func (r remembered) Load(id store.StreamID) (store.StreamState, bool, error) {
	state, ok := r[id]
	return state, ok, nil
}

func (r remembered) Save(map[store.StreamID]store.StreamState) error { return nil }
func (r remembered) Forget(store.StreamID) error                     { return nil }

// A predecessor comes back first after a restart of the listener, with a stream of which nothing was saved. What was
// saved of its other streams says that it has a successor. Found by the simulation.
func TestReceiver_FencesByWhatTheStoreKnows(t *testing.T) {
	known := store.StreamID{Publisher: [16]byte{1}, Stream: 2, Topic: "b"}
	r := listen(t, Config{Dedupe: remembered{known: {Epoch: 2, Incarnation: [16]byte{7}}}})
	first := opens(t, r, openOf(1))
	require.Len(t, first.handles, 1)
	f := openOf(1)
	f.Stream, f.Topic = known.Stream, known.Topic
	_, _, refused := r.open(f, "")
	require.NotNil(t, refused)
	require.Equal(t, wire.Code_CODE_FENCED, session.CodeOf(refused))
	require.False(t, first.handles[1].attachedTo(first), "its other streams are fenced as well")
	require.Equal(t, incarnation(2, 7), first.handles[1].publisher.lastSender(), "whose the newer epoch is")
	f.Epoch = 2
	_, _, refused = r.open(f, "")
	require.Nil(t, refused)
}

// A stream of a topic without a consumer moves to a second connection, is forgotten with that, and is opened on a
// third. The late end of the first, which still knows the stream as it was, takes nothing from what the third has
// received. Found by the simulation, whose model was wrong.
func TestStream_LateTerminateForgetsNoSuccessor(t *testing.T) {
	r := listen(t, Config{})
	open := func(epoch uint64) *conn {
		f := openOf(1)
		f.Epoch = epoch
		return opens(t, r, f)
	}
	old := open(1)
	open(2).terminate(nil)
	now := open(2)
	s := now.handles[1]
	require.NotSame(t, old.handles[1], s, "it was forgotten once")

	r.Topic("a").Join("g", func() {})
	require.NoError(t, s.publish(now, &session.PublishFrame{Handle: 1, First: 1, Messages: [][]byte{{1}}, Bytes: 3}))
	old.terminate(nil)
	now.terminate(nil)
	require.Same(t, s, open(2).handles[1])
	require.Equal(t, uint64(2), locked(s, (*session.Inbound).Next), "what it has is not asked for again")
}

// 10,000 publishers that open, or are refused, and go leave nothing behind: each releases what it opened.
func TestReceiver_WhatComesAndGoesLeavesNothing(t *testing.T) {
	r := listen(t, Config{MaxTopics: 2})
	r.Topic("a").Join("g", func() {})
	r.Topic("b").Join("g", func() {})
	c := opens(t, r, openOf(255))
	require.NoError(t, c.handle(&wire.Release{Handle: 1}))
	for i := range 10_000 {
		o := openOf(0)
		binary.BigEndian.PutUint64(o.Publisher, uint64(i))
		o.Handle = uint64(i + 2)
		switch i % 4 {
		case 0:
			o.Topic = "one too many"
		case 1:
			o.Base = 0
		case 2:
			o.Epoch = 0
		}
		require.NoError(t, c.open(o))
		if i%4 == 3 {
			require.NotNil(t, c.handles[o.Handle])
			require.NoError(t, c.handle(&wire.Release{Handle: o.Handle}))
		}
		require.Empty(t, c.handles)
		require.Empty(t, r.publishers)
		require.Empty(t, r.streams)
		require.Zero(t, r.streamCount)
	}
	require.Len(t, r.topics, 2)
}

// One stream too many is refused alone. It takes no place, and the connection's others stay.
func TestReceiver_OneStreamTooManyIsRefusedAlone(t *testing.T) {
	r := listen(t, Config{MaxTopics: 1})
	c := opens(t, r, openOf(1))
	again := openOf(1)
	again.Handle, again.Stream = 2, 2
	require.NoError(t, c.open(again), "the connection goes on")
	require.Len(t, c.handles, 1)
	require.Len(t, r.publishers, 1)
	require.Equal(t, 1, r.streamCount)
	require.NoError(t, c.handle(&wire.Release{Handle: 1}))
	require.NoError(t, c.open(again))
	require.Len(t, c.handles, 1)
}

// What a store remembers of a publisher fences its other streams, though the Open that brought it to light is refused.
func TestReceiver_RefusedOpenKeepsWhatTheStoreKnows(t *testing.T) {
	r := listen(t, Config{Dedupe: epochOf{stream: 1, epoch: 5}})
	r.Topic("a").Join("g", func() {})
	o := openOf(1)
	_, _, refused := r.open(o, "")
	require.NotNil(t, refused)
	require.Equal(t, wire.Code_CODE_FENCED, session.CodeOf(refused))
	o.Stream = 2
	_, _, refused = r.open(o, "")
	require.NotNil(t, refused, "of the same publisher")
}

// epochOf is a DedupeStore that knows one stream.
type epochOf struct{ stream, epoch uint64 }

func (e epochOf) Load(id store.StreamID) (store.StreamState, bool, error) {
	return store.StreamState{Epoch: e.epoch}, id.Stream == e.stream, nil
}
func (epochOf) Save(map[store.StreamID]store.StreamState) error { return nil }
func (epochOf) Forget(store.StreamID) error                     { return nil }
