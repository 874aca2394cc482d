package buffstreams

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// scriptedOutbox is an outbox with one stream, whose answers a test gives.
type scriptedOutbox struct {
	store.Outbox
	mu     sync.Mutex // guards stream, where a test changes it
	stream store.Stream

	acquire  func() (func(), error)
	read     func(from uint64) (store.Batch, error)
	readable func(seq uint64) (<-chan struct{}, error)
	settle   func(...store.Range) error
	forget   func() error
	renounce func() (bool, error)
}

func (o *scriptedOutbox) Streams() []store.Stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	return []store.Stream{o.stream}
}

func (o *scriptedOutbox) ID() [16]byte     { return [16]byte(bytes.Repeat([]byte{1}, 16)) }
func (o *scriptedOutbox) Secret() [16]byte { return [16]byte(bytes.Repeat([]byte{2}, 16)) }
func (o *scriptedOutbox) Epoch() uint64    { return 3 }
func (o *scriptedOutbox) Lineage() []store.Incarnation {
	return []store.Incarnation{{Epoch: 3, ID: [16]byte{4}}}
}
func (o *scriptedOutbox) Renounce() (bool, error)                 { return o.renounce() }
func (o *scriptedOutbox) Err() error                              { return nil }
func (o *scriptedOutbox) Acquire(context.Context) (func(), error) { return o.acquire() }
func (o *scriptedOutbox) Forget(context.Context, store.Key) error { return o.forget() }
func (o *scriptedOutbox) Settle(_ store.Key, _ uint64, r ...store.Range) error {
	return o.settle(r...)
}

func (o *scriptedOutbox) Read(_ store.Key, from uint64, _ int) (store.Batch, error) {
	return o.read(from)
}

func (o *scriptedOutbox) Readable(_ store.Key, seq uint64) (<-chan struct{}, error) {
	return o.readable(seq)
}

// newTestRelay is a relay of an outbox, and the delivery of its stream. Nothing was started.
func newTestRelay(t *testing.T, o *scriptedOutbox) (*streamRelay, testkit.Log) {
	log := testkit.NewLog()
	p := &Publisher{cfg: PublisherConfig{Outbox: o}, manager: &Manager{}, logger: log, users: usersOf(o)}
	r := newOutboxRelay(p)
	t.Cleanup(r.cancel)
	r.closing = t.Context()
	return &streamRelay{
		outboxRelay: r, id: o.stream.ID, key: o.stream.Key, attempt: r.ctx, refused: refusedMessages{seqs: map[uint64]struct{}{}},
	}, log
}

// TestOutboxRelay_SaysWhatAnOutboxCannotDo, once for each call; what a Close or a message that came meanwhile explains is no
// fault.
func TestOutboxRelay_SaysWhatAnOutboxCannotDo(t *testing.T) {
	broken := errors.New("broken")
	faults := map[error]bool{broken: true, store.ErrClosed: false, nil: false}
	for err, fault := range faults {
		o := &scriptedOutbox{settle: func(...store.Range) error { return err }}
		r, log := newTestRelay(t, o)
		require.Equal(t, err == nil, r.settle(store.Range{First: 1, Last: 1}))
		requireFault(t, log, fault, err, "An outbox cannot settle what was delivered")
	}
	faults[store.ErrPending] = false
	for err, fault := range faults {
		o := &scriptedOutbox{stream: store.Stream{ID: 7}, forget: func() error { return err }}
		r, log := newTestRelay(t, o)
		r.users.last[r.key] = &Publisher{}
		require.Equal(t, err == nil, r.forget(t.Context()))
		require.Equal(t, err != nil, r.users.last[r.key] != nil, "who publishes is known for as long as the stream is there")
		requireFault(t, log, fault, err, "An outbox cannot end a stream that holds nothing")
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		r.forget(ended)
		requireFault(t, log, false, err, "")
	}
	for _, ends := range []bool{false, true} {
		o := &scriptedOutbox{}
		r, log := newTestRelay(t, o)
		o.acquire = func() (func(), error) {
			if ends {
				r.cancel()
			}
			return nil, broken
		}
		r.run()
		requireFault(t, log, !ends, broken, "An outbox is not delivered")
	}
}

func requireFault(t *testing.T, log testkit.Log, fault bool, err error, msg string) {
	t.Helper()
	if fault {
		require.Len(t, log.Lines, 1)
		line := log.Next(t, "error")
		require.Equal(t, msg, line.Msg)
		require.ErrorIs(t, line.Err, err)
	}
	require.Empty(t, log.Lines)
}

// TestOutboxRelay_EndsOnlyStreamsThatHoldNothing, and that are there.
func TestOutboxRelay_EndsOnlyStreamsThatHoldNothing(t *testing.T) {
	o := &scriptedOutbox{stream: store.Stream{ID: 7, Pending: 1}} // Forget panics
	r, _ := newTestRelay(t, o)
	require.False(t, r.forget(t.Context()))
	o.stream.ID, o.stream.Pending = 8, 0
	require.False(t, r.forget(t.Context()))
}

var errGone = session.NewPeerError(wire.Code_CODE_TOPIC_GONE, "")

// TestRefuseAll_WaitsForMore of a topic that is gone, which ends when nothing comes.
func TestOutboxRelay_RenouncesOnceForAllStreams(t *testing.T) {
	times := 0
	r, _ := newTestRelay(t, &scriptedOutbox{renounce: func() (bool, error) { times++; return true, nil }})
	_, r.attempt = r.currentIdentity("a:1")
	other := &streamRelay{outboxRelay: r.outboxRelay}
	_, other.attempt = r.currentIdentity("b:1")
	require.True(t, r.renounce(r, errBlocked))
	require.Error(t, other.attempt.Err())
	require.True(t, r.renounce(other, errBlocked), "it has been already")
	require.Equal(t, 1, times)
	_, current := r.currentIdentity("a:1")
	require.NoError(t, current.Err())
}

func TestRefuseAll_WaitsForMore(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		more     bool  // there is a message
		read     error // of the outbox
		readable error
		stops    bool // the relay

		goesOn    bool
		takes     time.Duration
		forgotten bool
	}{
		"nothing comes":           {goesOn: true, takes: retryPause, forgotten: true},
		"a message is there":      {more: true, goesOn: true},
		"the relay stops":         {stops: true, goesOn: true, takes: time.Second, forgotten: true},
		"it cannot be read":       {read: broken, goesOn: true, takes: retryPause},
		"it was closed":           {readable: store.ErrClosed, goesOn: true},
		"there is no such stream": {readable: store.ErrUnknownStream},
	} {
		synctest.Test(t, func(t *testing.T) {
			forgotten, ready := false, make(chan struct{})
			if c.more {
				close(ready)
			}
			r, log := newTestRelay(t, &scriptedOutbox{
				stream:   store.Stream{ID: 7, First: 3, Next: 3},
				read:     func(from uint64) (store.Batch, error) { return store.Batch{First: from}, c.read },
				readable: func(seq uint64) (<-chan struct{}, error) { require.EqualValues(t, 3, seq); return ready, c.readable },
				forget:   func() error { forgotten = true; return nil },
			})
			if c.stops {
				time.AfterFunc(time.Second, r.cancel)
			}
			began := time.Now()
			s, _ := r.stream(7)
			require.Equal(t, c.goesOn, r.refuseAll(s, errGone), name)
			require.Equal(t, c.takes, time.Since(began), name)
			require.Equal(t, c.forgotten, forgotten, name)
			requireFault(t, log, c.read != nil, c.read, "Messages of an outbox cannot be delivered; they are kept")
		})
	}
}

// TestOutboxRelay_IdentityIsThatOfEarlierVersions: one that is derived in another way would have all that an upgraded process holds
// delivered again. Each destination knows the outbox by another.
func TestOutboxRelay_IdentityIsThatOfEarlierVersions(t *testing.T) {
	r, _ := newTestRelay(t, &scriptedOutbox{})
	id, valid := r.currentIdentity("127.0.0.1:1")
	require.NoError(t, valid.Err())
	require.Equal(t, "4c2a28e55467f3bf522df3e1eb5a434a27e0a6933c2580ba81fc8e3b45fbaedc", hex.EncodeToString(append(id.Publisher[:], id.Secret[:]...)))
	require.EqualValues(t, 3, id.Epoch)
	require.Equal(t, r.outbox.Lineage(), id.Lineage)
	other, _ := r.currentIdentity("127.0.0.1:2")
	require.NotEqual(t, id.Publisher, other.Publisher)
	require.NotEqual(t, id.Secret, other.Secret)
}

// TestOutboxRelay_StreamsThatHoldNothingEndAtBothEnds when the delivery stops, or nothing has come for long; their address has no
// use any more.
func TestOutboxRelay_StreamsThatHoldNothingEndAtBothEnds(t *testing.T) {
	for name, idle := range map[string]bool{"the delivery stops": false, "nothing comes": true} {
		t.Run(name, func(t *testing.T) { endsAtBothEnds(t, idle) })
	}
}

func endsAtBothEnds(t *testing.T, idle bool) {
	_, _, l := newPair(t, AckedConfig{})
	cfg := AckedConfig{}
	if idle {
		cfg.ForgetAfter = 50 * time.Millisecond // the listener remembers for longer
	}
	m := newTestManager(t, ManagerConfig{Acked: cfg})
	s := senderTo(t, m, tcp(l.Addr().String()))
	o, settled := &scriptedOutbox{}, make(chan struct{})
	o.stream = store.Stream{ID: 1, Key: store.Key{Destination: l.Addr().String(), Topic: "orders"}, First: 1, Next: 2, Pending: 1}
	o.read = func(from uint64) (store.Batch, error) {
		if from > 1 {
			return store.Batch{First: from}, nil
		}
		return store.Batch{First: 1, Messages: [][]byte{[]byte("order")}}, nil
	}
	o.readable = func(uint64) (<-chan struct{}, error) { return make(chan struct{}), nil }
	o.settle = func(...store.Range) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.stream.First, o.stream.Pending = 2, 0
		close(settled)
		return nil
	}
	o.forget = func() error { return nil }
	r, _ := newTestRelay(t, o)
	r.manager = m
	a := m.addressOf(s)
	before := usesAt(m, a)
	ended := make(chan error, 1)
	go func() { ended <- r.deliverOnce(o.stream) }() // ends with the relay
	c := newConsumer(l, "orders")
	d := c.next()
	streams := func() int { return l.Stats().Topics[0].Streams }
	require.Equal(t, 1, streams())
	c.Settle(d)
	<-settled
	why := errStreamEnded
	if !idle {
		r.cancel()
		why = context.Canceled
	}
	require.ErrorIs(t, testkit.Receive(t, ended), why)
	require.Eventually(t, func() bool { return streams() == 0 }, 30*time.Second, time.Millisecond)
	require.Equal(t, before, usesAt(m, a))
}
