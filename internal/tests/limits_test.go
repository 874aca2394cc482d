package tests

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// sized is a message of about n bytes, named by its UUID.
func sized(name string, n int) *message.Message { return message.NewMessage(name, make([]byte, n)) }

// TestLimit_MessageOverThePeersLimitIsToldAtOnce: the peer says nothing more after it has granted credit, so that nothing
// but the refusal itself can have it told of.
func TestLimit_MessageOverThePeersLimitIsToldAtOnce(t *testing.T) {
	t.Parallel()
	for _, credit := range []bool{false, true} {
		t.Run(fmt.Sprint(credit), func(t *testing.T) {
			ln, topic := listenPeer(t)
			told := make(chan error, 10)
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: time.Second,
				OnFailure: func(_ string, encoded []byte, err error) {
					if len(encoded) < 200<<10 {
						err = errors.New("it is not the message")
					}
					told <- err
				},
				ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{PingAfter: time.Hour, DeadAfter: 2 * time.Hour}},
			}, nil)
			require.NoError(t, err)
			defer func() { _ = pub.Close() }()
			require.NoError(t, pub.Publish(topic, sized("big", 200<<10)))
			d := acceptDesk(t, ln)
			if credit {
				d.grant(10, 1<<20)
			}
			require.ErrorIs(t, await(t, told), buffstreams.ErrLimit)
		})
	}
}

// TestLimit_RefusalIsToldThoughTheConnectionEnds: what was refused and not told yet survives a Failure, a cut and Close.
func TestLimit_RefusalIsToldThoughTheConnectionEnds(t *testing.T) {
	for name, end := range map[string]func(d *desk, pub *buffstreams.Publisher){
		"failure": func(d *desk, _ *buffstreams.Publisher) { d.send(&wire.Failure{Code: wire.Code_CODE_LIMIT}); d.cut() },
		"fault":   func(d *desk, _ *buffstreams.Publisher) { d.send(&wire.Hello{Version: 1}) },
		"close":   func(_ *desk, pub *buffstreams.Publisher) { _ = pub.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			ln, topic := listenPeer(t)
			told := make(chan error, 10)
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: time.Second,
				OnFailure:     func(_ string, _ []byte, err error) { told <- err },
				ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
			}, nil)
			require.NoError(t, err)
			require.NoError(t, pub.Publish(topic, sized("small", 1)))
			d := acceptDesk(t, ln)
			require.NoError(t, pub.Publish(topic, sized("big", 200<<10)))
			d.grant(1, 1000)
			d.collect(1)
			d.send(&wire.Ack{Handle: d.open.Handle, Next: d.next, Settled: []uint64{1, 1}})
			end(d, pub)
			_ = pub.Close()
			require.Len(t, told, 1)
			require.ErrorIs(t, <-told, buffstreams.ErrLimit)
		})
	}
}

func TestPublisher_LimitAboveTheManagersIsAConfigurationError(t *testing.T) {
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxMessageSize: 5000}})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close()) }()
	for _, cfg := range []buffstreams.PublisherConfig{
		{Manager: m, MaxMessageSize: 5001},
		{ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxMessageSize: 5000}}, MaxMessageSize: 5001},
		{MaxMessageSize: 1<<20 + 1},
	} {
		_, err := buffstreams.NewPublisher(cfg, nil)
		require.ErrorContains(t, err, "PublisherConfig.MaxMessageSize")
		require.ErrorContains(t, err, "AckedConfig.MaxMessageSize")
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, MaxMessageSize: 5000}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Close())
	pub, err = buffstreams.NewPublisher(buffstreams.PublisherConfig{ // the plain wire has limits of its own
		Manager: m, Wire: buffstreams.WireBuffStreams, Confirm: buffstreams.ConfirmEnqueued, MaxMessageSize: 1 << 21,
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Close())
}

// limited is an outbox in dir with a publisher on it whose limit is limit.
func limited(t *testing.T, dir string, limit int, onFailure func(string, []byte, error)) (*outbox.Outbox, *buffstreams.Publisher) {
	t.Helper()
	ob, err := outbox.Open(outbox.Config{Dir: dir})
	require.NoError(t, err)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: ob, OnFailure: onFailure, CloseTimeout: 200 * time.Millisecond,
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{MaxMessageSize: limit})},
	}, nil)
	require.NoError(t, err)
	return ob, pub
}

// TestOutbox_PublisherThatLowersItsLimitSendsWhatItHas: its own limit is about what it takes from now on. What the receiver
// takes is the receiver's to say.
func TestOutbox_PublisherThatLowersItsLimitSendsWhatItHas(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxMessageSize: 4 << 20}})
	dir := filepath.Join(t.TempDir(), "box")
	ob, pub := limited(t, dir, 4<<20, nil)
	require.NoError(t, pub.Publish(h.topic("big"), sized("big", 3<<20), sized("small", 1)))
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())

	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("big"))
	others := subscribe(t, h.newSubscriber(t, nil), h.topic("other"))
	ob, pub = limited(t, dir, 64<<10, nil)
	require.NoError(t, pub.Publish(h.topic("other"), newMessage("x")))
	require.Equal(t, []string{"x"}, receiveAcked(t, others, 1))
	for _, id := range []string{"big", "small"} {
		msg := receive(t, messages)
		require.Equal(t, id, msg.UUID)
		msg.Ack()
	}
	drain(t, pub)
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())
}

// TestOutbox_ReceiverThatLowersItsLimit: only the messages over the limit are refused, each once, and none leaves the outbox
// before OnFailure has it. Drain says nil only then.
func TestOutbox_ReceiverThatLowersItsLimit(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{MaxMessageSize: 64 << 10}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	others := subscribe(t, h.newSubscriber(t, nil), h.topic("other"))
	dir := filepath.Join(t.TempDir(), "box")
	var batch []*message.Message
	for i := range 3 {
		batch = append(batch, sized(fmt.Sprintf("big %d", i), 200<<10), sized(fmt.Sprintf("small %d", i), 1))
	}

	// Without OnFailure the topic waits, in the outbox and aloud. Nothing else does.
	ob, pub := limited(t, dir, 0, nil)
	require.NoError(t, pub.Publish(h.topic("a"), sized("first", 1)))
	require.NoError(t, pub.Publish(h.topic("a"), batch...))
	require.NoError(t, pub.Publish(h.topic("other"), newMessage("x")))
	require.Equal(t, []string{"x"}, receiveAcked(t, others, 1))
	msg := receive(t, messages)
	require.Equal(t, "first", msg.UUID)
	msg.Ack()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	require.Error(t, pub.Drain(ctx), "what is refused is nowhere else")
	cancel()
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())

	// OnFailure holds the first up: the outbox keeps it, also when it is opened again.
	entered, leave := make(chan struct{}), make(chan struct{})
	ob, pub = limited(t, dir, 0, func(string, []byte, error) {
		close(entered)
		<-leave
	})
	await(t, entered)
	require.Equal(t, 6, pendingIn(ob))
	closed := later(pub.Close)
	require.Error(t, requireResult(t, closed), "OnFailure has not returned")
	require.NoError(t, ob.Close())
	close(leave)

	told := make(chan string, 10)
	ob, pub = limited(t, dir, 0, func(_ string, encoded []byte, err error) {
		msg, decodeErr := buffstreams.EnvelopeMarshaler{}.Unmarshal("", encoded)
		if decodeErr != nil || !errors.Is(err, buffstreams.ErrLimit) {
			told <- fmt.Sprint(err, decodeErr)
			return
		}
		told <- msg.UUID
	})
	for i := range 3 {
		require.Equal(t, fmt.Sprintf("big %d", i), await(t, told))
		msg := receive(t, messages)
		require.Equal(t, fmt.Sprintf("small %d", i), msg.UUID)
		msg.Ack()
	}
	drain(t, pub)
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())
	require.Empty(t, told)
}

// TestOutbox_RejectionIsConfirmedWhenOnFailureHasIt: a process that ends in between is told once more. Else the receiver
// would say that the message is settled, and it would leave the outbox without a word.
func TestOutbox_RejectionIsConfirmedWhenOnFailureHasIt(t *testing.T) {
	t.Parallel()
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.MaxAttempts = 1 }), h.topic("a"))
	dir := filepath.Join(t.TempDir(), "box")
	entered, leave := make(chan struct{}), make(chan struct{})
	ob, pub := limited(t, dir, 0, func(string, []byte, error) {
		close(entered)
		<-leave
	})
	defer close(leave)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("poison"), newMessage("fine")))
	receive(t, messages).Nack()
	await(t, entered)
	require.Equal(t, []string{"fine"}, receiveAcked(t, messages, 1))
	require.Error(t, pub.Close())
	require.NoError(t, ob.Close()) // as if the process had been killed

	told := make(chan error, 10)
	ob, pub = limited(t, dir, 0, func(_ string, _ []byte, err error) { told <- err })
	require.ErrorIs(t, await(t, told), buffstreams.ErrHandlingFailed)
	drain(t, pub)
	require.NoError(t, pub.Close())
	require.NoError(t, ob.Close())
	require.Empty(t, told)
}

// TestLimit_OneTopicTooManyIsRefusedAlone: the others of the connection go on, the error says why it waits, and the topic is
// taken when there is room.
func TestLimit_OneTopicTooManyIsRefusedAlone(t *testing.T) {
	for name, acked := range map[string]buffstreams.AckedConfig{
		"topics":  {MaxTopics: 2},
		"streams": {MaxStreams: 2},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{Acked: acked})
			sub := h.newSubscriber(t, nil)
			first := subscribe(t, sub, h.topic("first"))
			second := subscribe(t, sub, h.topic("second"))
			go ackAll(second)
			var dials atomic.Int32
			m, err := buffstreams.NewManager(buffstreams.ManagerConfig{
				Acked: quick(buffstreams.AckedConfig{}), CloseTimeout: 100 * time.Millisecond,
				Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
					dials.Add(1)
					return (&net.Dialer{}).DialContext(ctx, network, address)
				},
			})
			require.NoError(t, err)
			defer func() { _ = m.Close() }()
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m}, nil)
			require.NoError(t, err)
			brief, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, PublishTimeout: 300 * time.Millisecond}, nil)
			require.NoError(t, err)
			require.NoError(t, pub.Publish(h.topic("first"), newMessage("1")))
			require.NoError(t, pub.Publish(h.topic("second"), newMessage("1")))
			require.Eventually(t, func() bool { // as soon as the peer has answered within the time-out
				err = brief.Publish(h.topic("third"), newMessage("1"))
				return errors.Is(err, buffstreams.ErrTimeout) && errors.Is(err, buffstreams.ErrLimit)
			}, patience, time.Millisecond, "it says why")
			require.NoError(t, pub.Publish(h.topic("first"), newMessage("2")))
			require.Equal(t, []string{"1", "2"}, receiveAcked(t, first, 2))
			require.EqualValues(t, 1, dials.Load())
		})
	}
}

// TestIdentity_ReceiverThatClaimsWhatWasNeverSent: the messages stay in the outbox, the topic's owner hears why, and no other
// topic of the address notices.
func TestIdentity_ReceiverThatClaimsWhatWasNeverSent(t *testing.T) {
	ln, topic := listenPeer(t)
	logged := make(chan error, 100)
	ob := openOutbox(t, filepath.Join(t.TempDir(), "box"))
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox:        ob,
		ManagerConfig: buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})},
	}, errorLog{to: logged})
	require.NoError(t, err)
	defer func() { _ = pub.Close() }()
	require.NoError(t, pub.Publish(topic, newMessages(3)...))
	p := acceptPeer(t, ln)
	open := take[*wire.Open](p)
	p.send(&wire.Opened{Handle: open.Handle, Next: 4, Settled: []uint64{1, 3}})
	require.ErrorIs(t, await(t, logged), buffstreams.ErrNeverSent)
	require.EqualValues(t, 3, ob.Streams()[0].Pending)

	require.NoError(t, pub.Publish(topic+"nother", newMessage("x")))
	other := take[*wire.Open](p)
	require.Equal(t, "another", other.Topic)
	p.send(&wire.Opened{Handle: other.Handle, Next: 1})
	p.send(&wire.Ack{Handle: other.Handle, CreditMessages: 1, CreditBytes: 1000})
	require.Equal(t, other.Handle, take[*wire.Publish](p).Handle)
	p.send(&wire.Ack{Handle: other.Handle, Next: 2, Settled: []uint64{1, 1}})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	require.Error(t, pub.Drain(ctx), "three messages are delivered to nobody")
}

// TestIdentity_FencedStreamIsGivenUp: nobody dials for it, and its messages stay.
func TestIdentity_FencedStreamIsGivenUp(t *testing.T) {
	t.Parallel()
	ln, topic := listenPeer(t)
	logged := make(chan error, 100)
	ob := openOutbox(t, filepath.Join(t.TempDir(), "box"))
	var dials atomic.Int32
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: ob,
		ManagerConfig: buffstreams.ManagerConfig{
			Acked: quick(buffstreams.AckedConfig{}),
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				dials.Add(1)
				return (&net.Dialer{}).DialContext(ctx, network, address)
			},
		},
	}, errorLog{to: logged})
	require.NoError(t, err)
	defer func() { _ = pub.Close() }()
	require.NoError(t, pub.Publish(topic, newMessages(3)...))
	p := acceptPeer(t, ln)
	p.send(&wire.Opened{Handle: take[*wire.Open](p).Handle, Code: wire.Code_CODE_FENCED})
	require.ErrorIs(t, await(t, logged), buffstreams.ErrFenced)
	p.cut()
	require.Never(t, func() bool { return dials.Load() > 1 }, 6*time.Second, 100*time.Millisecond)
	require.EqualValues(t, 3, ob.Streams()[0].Pending)
}

// await takes the next value of a channel.
func await[T any](t *testing.T, values <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-values:
	case <-time.After(patience):
		require.Fail(t, "nothing came")
	}
	return v
}

// errorLog hands on the errors that are logged.
type errorLog struct {
	watermill.NopLogger
	to chan error
}

func (l errorLog) Error(_ string, err error, _ watermill.LogFields) {
	select {
	case l.to <- err:
	default:
	}
}

func (l errorLog) With(watermill.LogFields) watermill.LoggerAdapter { return l }

// ackAll acks until the channel closes.
func ackAll(messages <-chan *message.Message) {
	for m := range messages {
		m.Ack()
	}
}

// TestLimit_OwnerThatLeavesIsToldFirst: a Publisher on a Manager that lives on learns of what was refused before it closed.
// The refusal ends Close's wait and begins the report at the same time.
func TestLimit_OwnerThatLeavesIsToldFirst(t *testing.T) {
	ln, topic := listenPeer(t)
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{Acked: quick(buffstreams.AckedConfig{})})
	require.NoError(t, err)
	defer func() { _ = m.Close() }()
	told := make(chan error, 1)
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Manager: m, Confirm: buffstreams.ConfirmEnqueued, CloseTimeout: time.Second,
		OnFailure: func(_ string, _ []byte, err error) { told <- err },
	}, nil)
	require.NoError(t, err)
	require.NoError(t, pub.Publish(topic, sized("big", 200<<10)))
	closed := later(pub.Close)
	acceptDesk(t, ln)
	require.NoError(t, requireResult(t, closed))
	require.Len(t, told, 1)
	require.ErrorIs(t, <-told, buffstreams.ErrLimit)
}

// choosy is an Unmarshaler with a limit of its own.
type choosy struct{ buffstreams.EnvelopeMarshaler }

func (c choosy) Unmarshal(topic string, data []byte) (*message.Message, error) {
	m, err := c.EnvelopeMarshaler.Unmarshal(topic, data)
	if err == nil && len(m.Payload) > 100 {
		err = fmt.Errorf("%w: %d bytes", buffstreams.ErrLimit, len(m.Payload))
	}
	return m, err
}

func TestLimit_OfAnUnmarshalerIsNoQuestionOfDecoding(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	sub := h.newSubscriber(t, func(c *buffstreams.SubscriberConfig) { c.Unmarshaler = choosy{} })
	messages := subscribe(t, sub, h.topic("a"))
	go ackAll(messages)
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Confirm = buffstreams.ConfirmHandled })
	err := pub.Publish(h.topic("a"), sized("big", 101))
	require.ErrorIs(t, err, buffstreams.ErrLimit)
	require.NotErrorIs(t, err, buffstreams.ErrUndecodable)
	require.NoError(t, pub.Publish(h.topic("a"), sized("fits", 100)))
}
