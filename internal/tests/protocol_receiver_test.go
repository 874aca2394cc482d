package tests

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

func TestProtocol_SenderTakesTheEndOfAStream(t *testing.T) {
	ln, topic := listenPeer(t)
	pub := senderOf(t, buffstreams.AckedConfig{}, buffstreams.ConfirmHandled)
	result := later(func() error { return pub.Publish(topic, newMessages(2)...) })
	d := acceptDesk(t, ln)
	d.grant(1, 1000)
	d.collect(1)
	d.wanted(1)
	d.send(&wire.Reject{Handle: d.open.Handle, Code: wire.Code_CODE_TOPIC_GONE})
	require.Equal(t, d.open.Handle, take[*wire.Release](d.wirePeer).Handle)
	require.ErrorIs(t, requireResult(t, result), buffstreams.ErrTopicGone)
	again := later(func() error { return pub.Publish(topic, newMessage("again")) })
	open := take[*wire.Open](d.wirePeer)
	require.NotEqual(t, d.open.Stream, open.Stream)
	require.NotEqual(t, d.open.Handle, open.Handle)
	d.send(&wire.Opened{Handle: open.Handle, Code: wire.Code_CODE_FORBIDDEN})
	require.ErrorIs(t, requireResult(t, again), buffstreams.ErrForbidden)
}

// listenPeer is where a script waits for senders.
func listenPeer(t *testing.T) (ln net.Listener, topic string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = ln.Close() })
	return ln, ln.Addr().String() + "/a"
}

func senderOf(t *testing.T, acked buffstreams.AckedConfig, confirm buffstreams.Confirm) *buffstreams.Publisher {
	t.Helper()
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Confirm: confirm, CloseTimeout: time.Millisecond, ManagerConfig: buffstreams.ManagerConfig{Acked: quick(acked)},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return pub
}

// desk is the receiver's side of one stream on one connection, with its books.
type desk struct {
	*wirePeer
	open            *wire.Open
	messages, bytes uint64 // granted
	used, usedBytes uint64
	next            uint64
}

func acceptPeer(t *testing.T, ln net.Listener) *wirePeer {
	t.Helper()
	conn, err := ln.Accept()
	p := newWirePeer(t, conn, err)
	hello := take[*wire.Hello](p)
	require.EqualValues(t, 1, hello.Version)
	require.GreaterOrEqual(t, hello.MaxFrame, uint64(leastFrame))
	p.send(&wire.Welcome{Version: 1, MaxFrame: leastFrame, MaxMessage: 60_000})
	return p
}

// acceptDesk takes a connection and its first stream, of which it remembers nothing.
func acceptDesk(t *testing.T, ln net.Listener) *desk {
	t.Helper()
	p := acceptPeer(t, ln)
	open := take[*wire.Open](p)
	require.Len(t, open.Publisher, 16)
	require.Len(t, open.Secret, 16)
	require.Equal(t, "a", open.Topic)
	require.NotZero(t, open.Base)
	require.NotZero(t, open.WantMessages)
	require.LessOrEqual(t, open.LeastBytes, open.WantBytes)
	p.send(&wire.Opened{Handle: open.Handle, Next: open.Base})
	return &desk{wirePeer: p, open: open, next: open.Base}
}

// encodedSize is what a message takes of the credit: a tag, its length, itself.
func encodedSize(msg []byte) uint64 {
	return uint64(1 + len(binary.AppendUvarint(nil, uint64(len(msg)))) + len(msg))
}

func (d *desk) grant(messages, size uint64) {
	d.t.Helper()
	d.messages, d.bytes = messages, size
	d.send(&wire.Ack{Handle: d.open.Handle, CreditMessages: messages, CreditBytes: size})
}

// collect takes Publish frames until n messages have come, and checks them against the books.
func (d *desk) collect(n int) (messages [][]byte) {
	d.t.Helper()
	for len(messages) < n {
		f := take[*wire.Publish](d.wirePeer)
		require.Equal(d.t, d.open.Handle, f.Handle)
		require.Equal(d.t, f.First > d.next, f.Flags&flagGap != 0, "gap flag at %d, expected %d", f.First, d.next)
		require.GreaterOrEqual(d.t, f.First, d.next)
		for _, msg := range f.Messages {
			d.used++
			d.usedBytes += encodedSize(msg)
		}
		require.LessOrEqual(d.t, d.used, d.messages, "messages beyond the credit")
		require.LessOrEqual(d.t, d.usedBytes, d.bytes, "bytes beyond the credit")
		messages = append(messages, f.Messages...)
		d.next = f.First + uint64(len(f.Messages))
	}
	require.Len(d.t, messages, n)
	return messages
}

// wanted takes a Want, which has to return all credit that is not used.
func (d *desk) wanted(messages uint64) *wire.Want {
	d.t.Helper()
	want := take[*wire.Want](d.wirePeer)
	require.Equal(d.t, d.open.Handle, want.Handle)
	require.Equal(d.t, d.messages, want.SeenMessages)
	require.Equal(d.t, messages, want.Messages)
	d.messages, d.bytes = d.used, d.usedBytes
	return want
}

func TestProtocol_ReceiverWrittenFromTheDocument(t *testing.T) {
	ln, topic := listenPeer(t)
	manager, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, manager.Close()) })
	h := &house{manager: manager, publisher: buffstreams.PublisherConfig{Manager: manager, CloseTimeout: time.Millisecond}}
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	msgs := newMessages(5)
	result := later(func() error { return pub.Publish(topic, msgs...) })

	d := acceptDesk(t, ln)
	require.EqualValues(t, 1, d.open.Base)
	require.EqualValues(t, 5, d.open.WantMessages)
	d.grant(2, d.open.WantBytes) // messages run out first
	sent := d.collect(2)
	want := d.wanted(3)
	d.grant(5, d.usedBytes+want.LeastBytes) // then bytes
	sent = append(sent, d.collect(1)...)
	require.Equal(t, want.LeastBytes, encodedSize(sent[2]))
	want = d.wanted(2)
	d.grant(4, d.usedBytes+want.Bytes)
	sent = append(sent, d.collect(1)...)
	d.wanted(1)
	d.grant(100, 10_000)
	sent = append(sent, d.collect(1)...)
	for i, data := range sent {
		var e wire.Envelope
		require.NoError(t, proto.Unmarshal(data, &e))
		require.Equal(t, msgs[i].UUID, e.Uuid)
		require.Equal(t, string(msgs[i].Payload), string(e.Payload))
	}
	d.wanted(0) // a stream that is idle gives its credit back

	// Out of order, and 1, 4 and 5 stay open.
	d.send(&wire.Ack{Handle: d.open.Handle, Next: 6, Settled: []uint64{2, 3}})
	d.send(&wire.Goaway{Reason: "closing"})
	d.send(&wire.Ping{Id: 1})
	require.EqualValues(t, 1, take[*wire.Pong](d.wirePeer).Id)
	async := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmEnqueued })
	require.NoError(t, async.Publish(topic, newMessage("later")))
	d.grant(100, 10_000)
	d.send(&wire.Ping{Id: 2})
	require.EqualValues(t, 2, take[*wire.Pong](d.wirePeer).Id, "nothing new comes after a Goaway")
	d.cut()

	// A receiver that remembers nothing gets everything that is not settled, and only that.
	d = acceptDesk(t, ln)
	require.EqualValues(t, 1, d.open.Base)
	d.grant(4, 10_000)
	require.Equal(t, sent[:1], d.collect(1))
	require.EqualValues(t, 2, d.next)
	require.Equal(t, sent[3:], d.collect(3)[:2])
	require.EqualValues(t, 7, d.next)
	d.send(&wire.Ack{Handle: d.open.Handle, Next: 7, Settled: []uint64{1, 1, 4, 4}})
	d.send(&wire.Reject{Handle: d.open.Handle, Sequence: 5, Code: wire.Code_CODE_FAILED, Reason: "no"})
	seen := take[*wire.RejectSeen](d.wirePeer)
	require.EqualValues(t, 5, seen.Sequence)
	require.Equal(t, d.open.Handle, seen.Handle)
	var refused *buffstreams.PeerError
	require.ErrorAs(t, requireResult(t, result), &refused)
	require.ErrorIs(t, refused, buffstreams.ErrHandlingFailed)
	d.send(&wire.Reject{Handle: d.open.Handle, Sequence: 5, Code: wire.Code_CODE_FAILED}) // as if it was not seen
	require.EqualValues(t, 5, take[*wire.RejectSeen](d.wirePeer).Sequence)
	d.send(&wire.Ack{Handle: d.open.Handle, Settled: []uint64{6, 6}})
	d.send(&wire.Ping{Id: 3})
	require.EqualValues(t, 3, take[*wire.Pong](d.wirePeer).Id)
	require.NoError(t, async.Close())
}

func TestProtocol_SenderPingsASilentReceiver(t *testing.T) {
	ln, topic := listenPeer(t)
	pub := senderOf(t, buffstreams.AckedConfig{PingAfter: 100 * time.Millisecond, DeadAfter: time.Hour}, buffstreams.ConfirmEnqueued)
	require.NoError(t, pub.Publish(topic, newMessage("x")))
	d := acceptDesk(t, ln)
	for range 2 {
		d.send(&wire.Pong{Id: take[*wire.Ping](d.wirePeer).Id})
	}
}
