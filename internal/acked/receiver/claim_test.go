package receiver

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
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
func opens(t *testing.T, e *Receiver, o *wire.Open) *conn {
	t.Helper()
	c := newConn(e, testkit.NewScriptedConn(nil))
	e.mu.Lock()
	e.conns[c] = struct{}{}
	require.Empty(t, e.counts.enter(c.host, &e.cfg))
	e.mu.Unlock()
	require.NoError(t, c.open(o))
	return c
}

// Between the moment at which an Open finds its stream and that at which it has it, somebody else may need room: the
// stream would be forgotten, and what it receives would come again at the next connection.
func TestAStreamThatIsBeingOpenedIsNotEvicted(t *testing.T) {
	e := listen(t, Config{MaxStreams: 1})
	s, refused := e.open(openOf(1), "")
	require.Nil(t, refused)
	_, refused = e.open(openOf(2), "")
	require.NotNil(t, refused)
	require.Equal(t, wire.Code_CODE_LIMIT, refused.Code)
	again, refused := e.open(openOf(1), "")
	require.Nil(t, refused)
	require.Same(t, s, again)
}

// A publisher comes back before its old connection is known to be dead, to a topic that nobody has asked for yet. When
// somebody does, it gets credit: the end of the old connection must not have taken the stream along.
func TestAStreamThatWasTakenOverOutlivesItsOldConnection(t *testing.T) {
	e := listen(t, Config{})
	old := opens(t, e, openOf(1))
	now := opens(t, e, openOf(1))
	old.end(nil)
	e.Topic("a").Join("g", func() {})
	s := now.handles[1]
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotZero(t, s.in.Outstanding(), "credit")
}

// A peer that never confirms a rejection, and goes, must not keep its place from others for ever.
func TestUnconfirmedRejectionsKeepNoPlaceForGood(t *testing.T) {
	e := listen(t, Config{MaxPublishers: 1})
	m := e.Topic("a").Join("g", func() {})
	c := opens(t, e, openOf(1))
	require.NoError(t, c.handles[1].publish(c, &session.PublishFrame{Handle: 1, First: 1, Messages: [][]byte{{1}}, Bytes: 3}))
	d, ok := m.Take()
	require.True(t, ok)
	_, refused := e.open(openOf(2), "")
	require.NotNil(t, refused, "what is not handled is kept")
	c.end(nil)
	_, refused = e.open(openOf(2), "")
	require.NotNil(t, refused, "what is not handled is kept")
	m.Refuse(d, dispatch.Refusal{Undecodable: true})
	require.Eventually(t, func() bool { // it does not look at every Open
		_, refused := e.open(openOf(2), "")
		return refused == nil
	}, 10*time.Second, time.Millisecond)
}

// With every place taken by somebody who is there, finding out that nobody can go must not be the cost of each refusal: the
// endpoint looks again only after a while.
func TestARefusalIsNotLookedIntoEachTime(t *testing.T) {
	e := listen(t, Config{MaxPublishers: 1})
	s, refused := e.open(openOf(1), "")
	require.Nil(t, refused)
	begin := time.Now()
	_, refused = e.open(openOf(2), "")
	require.NotNil(t, refused)
	require.True(t, e.fullUntil.After(begin))
	s.claims = 0 // it could be forgotten now
	e.fullUntil = begin.Add(time.Hour)
	_, refused = e.open(openOf(2), "")
	require.NotNil(t, refused)
	e.fullUntil = begin
	_, refused = e.open(openOf(2), "")
	require.Nil(t, refused)
}

// A stream that shares its topic with many keeps little credit, which would be of no use to one that sends more at a time:
// it would have to ask all the same, and to send back what it was given.
func TestNoCreditIsKeptUpForAStreamThatAsksForMore(t *testing.T) {
	e := listen(t, Config{WindowMessages: 6400})
	e.Topic("a").Join("g", func() {})
	for publisher := byte(1); publisher < 16; publisher++ {
		o := openOf(publisher)
		o.WantMessages = 0
		opens(t, e, o)
	}
	c := opens(t, e, openOf(16))
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
