package buffstreams

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/internal/dispatch"
	"github.com/buffstreams/watermill-buffstreams/internal/flow"
	"github.com/buffstreams/watermill-buffstreams/internal/session"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/pool"
)

// onInfo is a logger that calls a function for each line that says how things are.
type onInfo struct {
	watermill.NopLogger
	call func(msg string)
}

func (o onInfo) Info(msg string, _ watermill.LogFields) { o.call(msg) }

// listenPlainFor opens a listener for plain peers whose window has room for one message.
func listenPlainFor(t *testing.T, logger watermill.LoggerAdapter) (*Manager, *plainReceiver) {
	t.Helper()
	m := newTestManager(t, ManagerConfig{Logger: logger, Acked: AckedConfig{WindowMessages: 1}})
	l, err := m.listenPlain(anyPort, 1000)
	require.NoError(t, err)
	return m, l.(*plainReceiver)
}

// What waits for room when the listener closes takes none, also if the room comes in the last moment. That it waits is logged with the
// group that holds it up.
func TestPlainReceiver_LeavesNoRoomTakenAtItsEnd(t *testing.T) {
	endsWaiting(t, false)
	for range 20 { // a select of two channels that are ready chooses either
		endsWaiting(t, true)
	}
}

// endsWaiting ends a listener while a message waits for room; late: which comes at the same time.
func endsWaiting(t *testing.T, late bool) {
	t.Helper()
	room := flow.Amount{Messages: 1, Bytes: session.EncodedSize(1)}
	var p *plainReceiver
	abandon := sync.OnceFunc(func() { close(p.abandoned) })
	lines := make(chan string, 1)
	_, p = listenPlainFor(t, onInfo{call: func(msg string) {
		if late {
			p.topic.Window().Release(room)
			abandon()
		}
		lines <- msg
	}})
	t.Cleanup(func() {
		abandon()
		p.abandoned = make(chan struct{}) // for Close
	})
	member := p.topic.Join("g", func() {})
	defer member.Leave()
	require.NoError(t, p.receive([]byte("1")))
	received := make(chan error, 1)
	go func() { received <- p.receive([]byte("2")) }() // ends with abandoned
	require.Equal(t, "A consumer group is a whole window behind, and holds up its topic", testkit.Receive(t, lines))
	if !late {
		abandon()
	}
	if err := testkit.Receive(t, received); err != nil {
		require.ErrorIs(t, err, pool.ErrClosed)
	}
	for range p.held.Load() {
		d, _, ok := member.Take()
		require.True(t, ok)
		member.Settle(d)
	}
	if late {
		p.topic.Window().Take(room) // what was released twice: by the logger, and with the message
	}
	require.Zero(t, p.topic.Window().Held())
}

// A listener that is held, or drains, says so, and its Manager is not ready.
func TestPlainReceiver_ShowsThatItDrains(t *testing.T) {
	m, p := listenPlainFor(t, nil)
	require.Equal(t, "open", m.collectStats(time.Now()).Listeners[0].State)
	ready := make(chan struct{})
	m.holdUntil(ready, nil)
	require.Equal(t, "held", m.collectStats(time.Now()).Listeners[0].State)
	require.Equal(t, []string{"a Ready channel is not closed yet"}, m.notReady())
	close(ready)
	require.Eventually(t, func() bool { return m.collectStats(time.Now()).Listeners[0].State == "open" }, 10*time.Second, time.Millisecond)
	p.Drain()
	require.Equal(t, "draining", m.collectStats(time.Now()).Listeners[0].State)
	require.Equal(t, []string{"the listener at 127.0.0.1:0 is draining"}, m.notReady())
}

// Only the Manager answers for a message that was refused: its peer cannot be told.
func TestPlainReceiver_TellsOfRefusals(t *testing.T) {
	_, p := listenPlainFor(t, nil)
	told := 0
	p.held.Store(2)
	p.Refused(0, dispatch.Refusal{Unheard: func() { told++ }})
	p.Refused(1, dispatch.Refusal{})
	require.Equal(t, 1, told)
	require.Zero(t, p.held.Load())
	require.EqualValues(t, 2, p.Stats().Rejected)
}

// Connections are shown in the order of their addresses, whichever came first, and refused ones with the listener.
func TestPlainGuests_AreInOrder(t *testing.T) {
	watch := &spy{}
	m := newTestManager(t, ManagerConfig{Hooks: []hooks.Hook{watch}})
	g := &plainGuests{listener: "here", hooks: &m.told}
	for _, peer := range []string{"c", "a", "b"} {
		g.OnAccepted(hooks.Accepted{Peer: peer})
		g.OnRefused(hooks.Refused{Peer: peer})
	}
	g.OnLost(hooks.Lost{Address: "b"})
	here := g.peers()
	require.Len(t, here, 2)
	require.Equal(t, []string{"a", "c"}, []string{here[0].Address, here[1].Address})
	for _, e := range of[hooks.Refused](watch) {
		require.Equal(t, "here", e.Listener)
	}
	require.Len(t, of[hooks.Refused](watch), 3)
}

// A Manager shows all plain peers, a Publisher those of its topics.
func TestPlainPeers_AreShownByTheirManager(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	m.peers.of(tcp("127.0.0.1:1"), &m.told)
	require.Len(t, m.collectStats(time.Now()).Addresses, 1)
	p, err := NewPublisher(PublisherConfig{Manager: m, Wire: WireBuffStreams, Confirm: ConfirmEnqueued}, nil)
	require.NoError(t, err)
	require.Empty(t, p.collectStats(time.Now()).Addresses)
	require.NoError(t, p.plain.use(tcp("127.0.0.1:1")))
	require.Len(t, p.collectStats(time.Now()).Addresses, 1)
	require.NoError(t, p.Close())
}

// A Flush that waited finds that an address has been given up meanwhile, by another one or the tick.
func TestPlainPublisher_GivesUpAnAddressOnce(t *testing.T) {
	m := newTestManager(t, ManagerConfig{})
	p, err := NewPublisher(PublisherConfig{Manager: m, Wire: WireBuffStreams, Confirm: ConfirmEnqueued}, nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Close()) }()
	at := tcp("127.0.0.1:1")
	require.NoError(t, p.plain.use(at))
	p.plain.leave(at)
	require.Empty(t, m.plainUses.by)
	p.plain.mu.Lock()
	defer p.plain.mu.Unlock()
	p.plain.forgetLocked(at)
	require.Empty(t, p.plain.used)
}

// A call that waits on the plain wire leaves nothing with what outlives it either.
func TestPlainPublisher_LeavesNothingWithAContext(t *testing.T) {
	p := newTestPublisher(t, EnvelopeMarshaler{})
	defer func() { _ = p.Close() }()
	p.cfg.PublishContext = true
	ofPublisher, ofMessage, one := newLasting(), newLasting(), keyed("a")[0]
	p.ctx = ofPublisher
	one.SetContext(ofMessage)
	for _, timeout := range []time.Duration{0, time.Minute} {
		w := plainWait{publisher: p, state: p.state("orders"), first: one, timeout: timeout}
		ctx := w.begin(errNoConnect)
		require.Equal(t, ctx, w.begin(errNotTaken))
		_, bounded := ctx.Deadline()
		require.Equal(t, timeout > 0, bounded)
		require.EqualValues(t, 1, ofMessage.waiting.Load())
		w.end()
		require.ErrorIs(t, ctx.Err(), context.Canceled)
		require.Zero(t, ofMessage.waiting.Load())
		require.Zero(t, ofPublisher.waiting.Load())
	}
}
