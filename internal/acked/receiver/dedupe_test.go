package receiver

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// failingStore fails its first write, when it is let.
type failingStore struct {
	remembered
	fail  chan error
	saves atomic.Int32
}

func (f *failingStore) Save(map[store.StreamID]store.StreamState) error {
	if f.saves.Add(1) == 1 {
		return <-f.fail
	}
	return nil
}

// A batch has gathered while a write is under way that fails. The next write would succeed, but what the store holds is
// not known: nothing is acked any more, neither of that batch nor of a later one.
func TestCommitter_WritesNothingAfterAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("disk")
		f := &failingStore{fail: make(chan error)}
		c := newCommitter(f, testkit.NewLog())
		s := &stream{in: session.RestoreInbound(nil, 1)}
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- c.commit(s) }() // ends with commit
			synctest.Wait()
		}
		f.fail <- broken
		require.ErrorIs(t, <-results, broken)
		require.ErrorIs(t, <-results, broken)
		require.ErrorIs(t, c.commit(s), broken)
		require.EqualValues(t, 1, f.saves.Load())
		c.close()
		require.ErrorIs(t, c.commit(s), broken)
	})
}

// memoryStore is a DedupeStore in memory, whose Save waits for hold, if there is one.
type memoryStore struct {
	hold    chan struct{}
	failing atomic.Bool
	inside  atomic.Int32
	most    atomic.Int32 // calls of Save and Forget at a time

	mu     sync.Mutex // guards the fields below
	states map[store.StreamID]store.StreamState
	saved  []map[store.StreamID]store.StreamState // by each Save
}

func newMemoryStore() *memoryStore {
	return &memoryStore{states: map[store.StreamID]store.StreamState{}}
}

func (m *memoryStore) enter() {
	m.most.Store(max(m.most.Load(), m.inside.Add(1)))
	if m.hold != nil {
		<-m.hold
	}
}

func (m *memoryStore) Load(id store.StreamID) (store.StreamState, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	state, ok := m.states[id]
	return state, ok, nil
}

func (m *memoryStore) Save(states map[store.StreamID]store.StreamState) error {
	m.enter()
	defer m.inside.Add(-1)
	if m.failing.Load() {
		return errors.New("disk")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.Copy(m.states, states)
	m.saved = append(m.saved, maps.Clone(states))
	return nil
}

func (m *memoryStore) Forget(id store.StreamID) error {
	m.enter()
	defer m.inside.Add(-1)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.states, id)
	return nil
}

func (m *memoryStore) streams() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.states)
}

// A message was saved as settled, and its stream has not taken that in yet, when another of its messages is saved.
func TestStream_SavesNoLessThanBefore(t *testing.T) {
	m := newMemoryStore()
	c := newCommitter(m, testkit.NewLog())
	defer c.close()
	s := &stream{committer: c, in: session.RestoreInbound(nil, 1)}
	require.NoError(t, s.persist(store.Range{First: 1, Last: 1}))
	require.NoError(t, s.persist(store.Range{First: 2, Last: 2}))
	require.Equal(t, []store.Range{{First: 1, Last: 2}}, m.states[s.id].Settled)
	s.settle(store.Range{First: 2, Last: 2})
	require.NoError(t, c.commit(s))
	s.settle(store.Range{First: 1, Last: 1})
	require.NoError(t, c.commit(s))
	for _, saved := range m.saved[1:] {
		require.Equal(t, []store.Range{{First: 1, Last: 2}}, saved[s.id].Settled)
	}
	require.Empty(t, s.uncommitted)
}

// A connection ends, of a topic that has lost its group, while the store saves what is settled. A stream that was read from the
// store meanwhile would have less, deliver it again, and save less.
func TestStream_StaysWhileItIsSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemoryStore()
		m.hold = make(chan struct{})
		r := newReceiver(complete(Config{Dedupe: m}))
		r.committer = newCommitter(m, testkit.NewLog())
		defer r.committer.close()
		open := func() *stream {
			s, _, refused := r.open(&wire.Open{
				Handle: 1, Publisher: make([]byte, 16), Secret: make([]byte, 16), Epoch: 1, Stream: 1, Topic: "a", Base: 1,
			}, "")
			require.Nil(t, refused)
			return s
		}
		s := open()
		s.opens = 0 // it was attached, and detached
		var saved sync.WaitGroup
		saved.Go(func() { s.Settled(1, 1) })
		synctest.Wait()
		require.True(t, s.topic.Unused())
		require.False(t, r.removeUnused(s), "the store does not know yet")
		require.Same(t, s, open())
		s.opens = 0
		close(m.hold)
		saved.Wait()
		require.False(t, r.knows(s.id), "now it does")
		require.Equal(t, []store.Range{{First: 1, Last: 1}}, open().in.Settled(nil))
	})
}

// Listeners that share a store, of whatever Managers, call it one after another.
func TestCommitter_CallsAStoreOnceAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemoryStore()
		m.hold = make(chan struct{})
		var done sync.WaitGroup
		var committers []*committer
		for i := range 4 {
			c := newCommitter(guardedStore{m, t.Context()}, testkit.NewLog())
			committers = append(committers, c)
			s := &stream{id: store.StreamID{Stream: uint64(i)}, committer: c, in: session.RestoreInbound(nil, 1)}
			done.Go(func() { require.NoError(t, c.commit(s)) })
			if i%2 == 1 {
				done.Go(func() { require.NoError(t, c.forget(s)) })
			}
		}
		synctest.Wait()
		inside := m.inside.Load()
		close(m.hold)
		done.Wait()
		require.EqualValues(t, 1, inside)
		require.EqualValues(t, 1, m.most.Load())
		for _, c := range committers {
			c.close()
		}
		require.Empty(t, allTurns.stores)
	})
}

// A call that was left behind while it waited for its turn would save what is older than what was saved since.
func TestGuardedStore_MakesNoCallThatWasLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemoryStore()
		m.hold = make(chan struct{})
		var done sync.WaitGroup
		done.Go(func() {
			require.NoError(t, guardedStore{m, t.Context()}.Save(map[store.StreamID]store.StreamState{{}: {}}))
		})
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		done.Go(func() {
			require.ErrorIs(t, guardedStore{m, ctx}.Save(map[store.StreamID]store.StreamState{{Stream: 1}: {}}), context.Canceled)
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		close(m.hold)
		done.Wait()
		synctest.Wait()
		require.Equal(t, 1, m.streams())
		require.Empty(t, allTurns.stores)
	})
}

// A stream has ended while a write of its state was due: it does not come back.
func TestCommitter_ForgetsWhatWasToBeSaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemoryStore()
		m.hold = make(chan struct{})
		c := newCommitter(m, testkit.NewLog())
		busy, s := &stream{in: session.RestoreInbound(nil, 1)}, &stream{id: store.StreamID{Stream: 1}, in: session.RestoreInbound(nil, 1)}
		var done sync.WaitGroup
		done.Go(func() { require.NoError(t, c.commit(busy)) })
		synctest.Wait()
		done.Go(func() { require.NoError(t, c.commit(s)) })
		synctest.Wait()
		done.Go(func() { require.NoError(t, c.forget(s)) })
		synctest.Wait()
		close(m.hold)
		done.Wait()
		require.Equal(t, 1, m.streams())
		c.close()
	})
}

// publish1 has connection c publish one message.
func publish1(t *testing.T, c *conn, seq uint64) {
	t.Helper()
	require.NoError(t, c.handles[1].publish(c, &session.PublishFrame{Handle: 1, First: seq, Messages: [][]byte{{1}}, Bytes: 3}))
}

// After a failed Save all that arrives would come again: no credit is given but what was given before, neither to a
// stream that sends, nor to one that asks, nor to one that waits in line, nor to one that opens.
func TestReceiver_GivesNoCreditAfterAFailedSave(t *testing.T) {
	m := newMemoryStore()
	m.failing.Store(true)
	r := listen(t, Config{Dedupe: m, WindowMessages: 64})
	member := r.Topic("a").Join("g", func() {})
	c := opens(t, r, openOf(1))
	s := c.handles[1]
	left := func(s *stream) int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.in.Outstanding().Messages
	}
	s.want(c, uint64(left(s)), 64, 3*64, 3)
	waiting := opens(t, r, func() *wire.Open { o := openOf(2); o.WantMessages, o.WantBytes = 64, 3*64; return o }())
	granted, others := left(s), left(waiting.handles[1])
	require.NotZero(t, granted)

	publish1(t, c, 1)
	d, _, ok := member.Take()
	require.True(t, ok)
	member.Settle(d)
	for seq := uint64(2); seq <= uint64(granted); seq++ {
		publish1(t, c, seq)
	}
	require.Zero(t, left(s))
	for range granted - 1 {
		d, _, ok := member.Take()
		require.True(t, ok)
		member.Settle(d)
	}
	s.want(c, uint64(granted), 1, 3, 3)
	require.Zero(t, left(s))
	require.Equal(t, others, left(waiting.handles[1]))
	_, _, refused := r.open(openOf(3), "")
	require.NotNil(t, refused)
	require.Equal(t, wire.Code_CODE_LIMIT, session.CodeOf(refused))
}

// A sender ends a stream, and its process, before everything is handled. What it leaves behind is forgotten with the
// last of its messages, also in the store, whether that is acked or rejected.
func TestReceiver_ForgetsAReleasedStreamWhenAllIsSettled(t *testing.T) {
	m := newMemoryStore()
	r := listen(t, Config{Dedupe: m})
	member := r.Topic("a").Join("g", func() {})
	c := opens(t, r, openOf(1))
	for seq := uint64(1); seq <= 3; seq++ {
		publish1(t, c, seq)
	}
	take := func() dispatch.Delivery {
		d, _, ok := member.Take()
		require.True(t, ok)
		return d
	}
	member.Settle(take())
	require.Equal(t, 1, m.streams())
	require.NoError(t, c.handle(&wire.Release{Handle: 1}))
	c.terminate(nil)
	require.Equal(t, 2, r.OnlyCopies(), "its sender is gone")
	member.Settle(take())
	require.Equal(t, 1, r.streamCount, "one message is left")
	member.Refuse(take(), dispatch.Refusal{Reason: "no"})
	require.Zero(t, r.streamCount)
	require.Empty(t, r.publishers)
	require.Zero(t, m.streams())
	require.Zero(t, r.Topic("a").Window().Held(), "neither credit nor messages")
}

// A sender that has released a stream and opens it again has it back.
func TestReceiver_KeepsAReleasedStreamThatIsOpenedAgain(t *testing.T) {
	m := newMemoryStore()
	r := listen(t, Config{Dedupe: m})
	member := r.Topic("a").Join("g", func() {})
	c := opens(t, r, openOf(1))
	publish1(t, c, 1)
	s := c.handles[1]
	require.NoError(t, c.handle(&wire.Release{Handle: 1}))
	c.terminate(nil)
	again := opens(t, r, openOf(1))
	require.Same(t, s, again.handles[1])
	d, _, ok := member.Take()
	require.True(t, ok)
	member.Settle(d)
	require.Equal(t, 1, r.streamCount)
	require.Equal(t, 1, m.streams())
}

// A Release that comes too early is void if the peer goes on with the stream.
func TestReceiver_IgnoresAnEarlyReleaseOfASenderThatGoesOn(t *testing.T) {
	m := newMemoryStore()
	r := listen(t, Config{Dedupe: m})
	member := r.Topic("a").Join("g", func() {})
	c := opens(t, r, openOf(1))
	publish1(t, c, 1)
	require.NoError(t, c.handle(&wire.Release{Handle: 1}))
	publish1(t, c, 2)
	for range 2 {
		d, _, ok := member.Take()
		require.True(t, ok)
		member.Settle(d)
	}
	c.terminate(nil)
	require.Equal(t, 1, r.streamCount)
	require.Equal(t, 1, m.streams())
}

// A publisher that was killed releases nothing. What is handled of it is forgotten when it has been away for long; what is
// not handled stays, and so does a publisher that is there, or has come back.
func TestReceiver_ForgetsPublishersThatAreAwayForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceiver(complete(Config{ForgetIdleAfter: 4 * time.Hour}))
		codec, err := session.NewCodec(r.cfg.MaxMessageSize)
		require.NoError(t, err)
		r.codec = codec
		member := r.Topic("a").Join("g", func() {})
		var conns []*conn
		for id := byte(1); id <= 4; id++ {
			c := opens(t, r, openOf(id))
			publish1(t, c, 1)
			conns = append(conns, c)
		}
		for range 3 { // not that of the last one
			d, _, ok := member.Take()
			require.True(t, ok)
			member.Settle(d)
		}
		for _, id := range []int{0, 1, 3} { // the third stays
			conns[id].terminate(nil)
		}
		time.Sleep(3*time.Hour + time.Minute)
		synctest.Wait()
		require.Equal(t, 4, r.streamsNow())
		opens(t, r, openOf(2)).terminate(nil)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.Equal(t, 3, r.streamsNow(), "the first one is gone")
		time.Sleep(4 * time.Hour)
		synctest.Wait()
		require.Equal(t, 2, r.streamsNow())
		require.NoError(t, r.Close(t.Context()))
		require.NotNil(t, r.publishers[[16]byte{3}])
		require.NotNil(t, r.publishers[[16]byte{4}], "it has something unsettled")
		require.Nil(t, r.idleTimer)
	})
}

func (r *Receiver) streamsNow() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.streamCount
}
