package tests

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v5"
	"github.com/stretchr/testify/require"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/testkit"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// misbehaviour is what a callback does at its first calls, one after the other, before it behaves.
type misbehaviour struct {
	calls atomic.Int32
	acts  []func()
}

// next does what is next, and tells whether the callback is to behave.
func (m *misbehaviour) next() bool {
	n := int(m.calls.Add(1))
	if n > len(m.acts) {
		return true
	}
	m.acts[n-1]()
	return false
}

func panics() { panic("oops") }

func nothing() {}

// brisk reconnects soon.
func brisk() *buffstreams.ReconnectConfig {
	return &buffstreams.ReconnectConfig{InitialInterval: time.Millisecond, MaxInterval: 2 * time.Millisecond}
}

// newPeer is a Manager of its own, with a publisher.
func newPeer(t *testing.T, cfg buffstreams.ManagerConfig) (*buffstreams.Manager, *buffstreams.Publisher) {
	m, err := buffstreams.NewManager(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close() })
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{Manager: m, CloseTimeout: 200 * time.Millisecond}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = pub.Close() })
	return m, pub
}

// TestCallback_DialThatMisbehavesIsTriedAgain: it panics, or returns nothing.
func TestCallback_DialThatMisbehavesIsTriedAgain(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	m := misbehaviour{acts: []func(){panics, nothing}}
	_, pub := newPeer(t, buffstreams.ManagerConfig{
		Acked: buffstreams.AckedConfig{Reconnect: brisk()},
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if !m.next() {
				return nil, nil
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	})
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")))
	receiveAcked(t, messages, 1)
}

// TestCallback_DialingThatBlocksIsBounded, whether it heeds its context or not: by HandshakeTimeout, and by Close. A connection that
// comes too late is closed.
func TestCallback_DialingThatBlocksIsBounded(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	require.NoError(t, far.SetReadDeadline(time.Now().Add(patience)))
	for name, change := range map[string]func(cfg *buffstreams.ManagerConfig, block func()){
		"Dial": func(cfg *buffstreams.ManagerConfig, block func()) {
			cfg.Dial = func(context.Context, string, string) (net.Conn, error) { block(); return near, nil }
		},
		"Token": func(cfg *buffstreams.ManagerConfig, block func()) {
			cfg.Acked.Insecure = true
			cfg.Acked.Token = func(context.Context, string) (string, error) { block(); return "", nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := blocker{make(chan struct{}, 1000), make(chan struct{})}
			cfg := buffstreams.ManagerConfig{
				CloseTimeout: 100 * time.Millisecond, Acked: buffstreams.AckedConfig{HandshakeTimeout: 100 * time.Millisecond, Reconnect: brisk()},
			}
			change(&cfg, b.block)
			m, err := buffstreams.NewManager(cfg)
			require.NoError(t, err)
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				Manager: m, PublishTimeout: 400 * time.Millisecond, CloseTimeout: 100 * time.Millisecond,
			}, nil)
			require.NoError(t, err)
			require.Eventually(t, func() bool { // as soon as an attempt has had its time
				err = pub.Publish("127.0.0.1:1/a", newMessage("x"))
				return err != nil && strings.Contains(err.Error(), name+" has not returned")
			}, patience, time.Millisecond, "the timeout says why")
			require.Eventually(t, func() bool { return len(b.entered) > 1 }, patience, time.Millisecond, "it is tried again")
			_ = requireSoon(t, later(pub.Close))
			_ = requireSoon(t, later(m.Close))
			close(b.release)
		})
	}
	_, err := far.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "near was closed")
}

// TestCallback_ListenThatMisbehavesFailsSubscribe, and the next call finds nothing of it.
func TestCallback_ListenThatMisbehavesFailsSubscribe(t *testing.T) {
	for _, wire := range []buffstreams.Wire{buffstreams.WireAcked, buffstreams.WireBuffStreams} {
		m := misbehaviour{acts: []func(){panics, nothing}}
		sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Wire: wire, ManagerConfig: buffstreams.ManagerConfig{
			Listen: func(network, address string) (net.Listener, error) {
				if !m.next() {
					return nil, nil
				}
				return net.Listen(network, address)
			},
		}}, nil)
		require.NoError(t, err)
		for range 2 {
			_, err = sub.Subscribe(t.Context(), "127.0.0.1:0")
			require.ErrorContains(t, err, "Listen")
		}
		_, err = sub.Subscribe(t.Context(), "127.0.0.1:0")
		require.NoError(t, err)
		require.NoError(t, sub.Close())
	}
}

func TestCallback_ListenThatBlocksDoesNotHoldUpClose(t *testing.T) {
	b := blocker{make(chan struct{}, 10), make(chan struct{})}
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{
		CloseTimeout: 100 * time.Millisecond,
		Listen:       func(string, string) (net.Listener, error) { b.block(); return net.Listen("tcp", "127.0.0.1:0") },
	})
	require.NoError(t, err)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: m}, nil)
	require.NoError(t, err)
	subscribed := later(func() error { _, err := sub.Subscribe(context.Background(), "127.0.0.1:0"); return err })
	<-b.entered
	require.NoError(t, requireSoon(t, later(sub.Close)))
	require.ErrorContains(t, requireSoon(t, later(m.Close)), "ManagerConfig.Listen")
	close(b.release)
	require.Error(t, requireResult(t, subscribed))
}

// TestCallback_AdmissionThatBlocksIsBounded by HandshakeTimeout: the peer comes back, and Close does not wait.
func TestCallback_AdmissionThatBlocksIsBounded(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(cfg *buffstreams.AckedConfig, block func()){
		"Authenticate": func(cfg *buffstreams.AckedConfig, block func()) {
			cfg.Authenticate = func(context.Context, buffstreams.Peer) (string, error) { block(); return "peer", nil }
		},
		"Authorize": func(cfg *buffstreams.AckedConfig, block func()) {
			cfg.Authorize = func(_ context.Context, a buffstreams.Access) error {
				if a.Action == buffstreams.ActionPublish {
					block()
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := blocker{make(chan struct{}, 10), make(chan struct{})}
			cfg := buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{HandshakeTimeout: 200 * time.Millisecond}}
			var calls atomic.Int32
			change(&cfg.Acked, func() {
				if calls.Add(1) == 1 {
					b.block()
				}
			})
			h := newHouse(t, cfg)
			messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
			_, pub := newPeer(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Reconnect: brisk()}})
			require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")), "the next call answers")
			receiveAcked(t, messages, 1)
			close(b.release)
		})
	}
}

// TestCallback_SubscribeWaitsNoLongerForAuthorize than HandshakeTimeout.
func TestCallback_SubscribeWaitsNoLongerForAuthorize(t *testing.T) {
	b := blocker{make(chan struct{}, 10), make(chan struct{})}
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
		HandshakeTimeout: 100 * time.Millisecond,
		Authorize:        func(context.Context, buffstreams.Access) error { b.block(); return nil },
	}}}, nil)
	require.NoError(t, err)
	subscribed := later(func() error { _, err := sub.Subscribe(context.Background(), "127.0.0.1:0"); return err })
	require.ErrorContains(t, requireSoon(t, subscribed), "Authorize has not returned")
	require.NoError(t, requireSoon(t, later(sub.Close)))
	close(b.release)
}

// TestCallback_TLSThatMisbehavesFailsItsHandshake, at either end, and no other.
func TestCallback_TLSThatMisbehavesFailsItsHandshake(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	for _, end := range []string{"server", "client"} {
		t.Run(end, func(t *testing.T) {
			server, client := testkit.SelfSignedTLS(t)
			m := misbehaviour{acts: []func(){panics, func() { <-block }}}
			if end == "server" {
				server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { m.next(); return nil, nil }
			} else {
				client.VerifyConnection = func(tls.ConnectionState) error { m.next(); return nil }
			}
			cfg := buffstreams.AckedConfig{
				ServerTLS: server, ClientTLS: client, HandshakeTimeout: 300 * time.Millisecond, Reconnect: brisk(),
			}
			h := newHouse(t, buffstreams.ManagerConfig{Acked: cfg})
			topic := "tls://" + h.topic("a")
			messages := subscribe(t, h.newSubscriber(t, nil), topic)
			require.NoError(t, h.newPublisher(t, nil).Publish(topic, newMessage("x")))
			receiveAcked(t, messages, 1)
			require.GreaterOrEqual(t, m.calls.Load(), int32(3))
		})
	}
}

// badStore is a DedupeStore whose methods misbehave first.
type badStore struct{ load, save, forget misbehaviour }

func (s *badStore) Load(store.StreamID) (store.StreamState, bool, error) {
	s.load.next()
	return store.StreamState{}, false, nil
}

func (s *badStore) Save(map[store.StreamID]store.StreamState) error { s.save.next(); return nil }

func (s *badStore) Forget(store.StreamID) error { s.forget.next(); return nil }

// TestCallback_DedupeStoreThatPanicsHasFailed: a stream is tried again after a Load, and nothing more is acked after a Save.
func TestCallback_DedupeStoreThatPanicsHasFailed(t *testing.T) {
	t.Parallel()
	bad := &badStore{load: misbehaviour{acts: []func(){panics}}, save: misbehaviour{acts: []func(){panics}}}
	h := newHouse(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Dedupe: bad}})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	_, pub := newPeer(t, buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Reconnect: brisk()}})
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("x")))
	receiveAcked(t, messages, 1)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("y")), "the connection stands")
	receiveAcked(t, messages, 1)
}

// TestCallback_DedupeStoreThatBlocksDoesNotHoldUpClose while a publisher's stream is looked up.
func TestCallback_DedupeStoreThatBlocksDoesNotHoldUpClose(t *testing.T) {
	t.Parallel()
	b := blocker{make(chan struct{}, 10), make(chan struct{})}
	bad := &badStore{load: misbehaviour{acts: []func(){b.block}}}
	m, err := buffstreams.NewManager(buffstreams.ManagerConfig{CloseTimeout: 100 * time.Millisecond, Acked: buffstreams.AckedConfig{Dedupe: bad}})
	require.NoError(t, err)
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: m}, nil)
	require.NoError(t, err)
	addr, err := sub.Addr("127.0.0.1:0")
	require.NoError(t, err)
	_, pub := newPeer(t, buffstreams.ManagerConfig{CloseTimeout: 100 * time.Millisecond})
	published := later(func() error { return pub.Publish(addr.String()+"/a", newMessage("x")) })
	<-b.entered
	require.NoError(t, requireSoon(t, later(sub.Close)))
	_ = requireSoon(t, later(m.Close))
	close(b.release)
	_ = pub.Close()
	require.Error(t, requireResult(t, published))
}

// TestCallback_BackOffThatMisbehavesDoesNotSpin: one that panics, is nil or says stop means the longest wait.
func TestCallback_BackOffThatMisbehavesDoesNotSpin(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func() backoff.BackOff{
		"panics": func() backoff.BackOff { panic("oops") },
		"nil":    func() backoff.BackOff { return nil },
		"stops":  func() backoff.BackOff { return &backoff.StopBackOff{} },
		"later":  func() backoff.BackOff { return panicking{} },
	} {
		t.Run(name, func(t *testing.T) {
			var dials atomic.Int32
			_, pub := newPeer(t, buffstreams.ManagerConfig{
				CloseTimeout: 10 * time.Millisecond,
				Acked:        buffstreams.AckedConfig{Reconnect: &buffstreams.ReconnectConfig{BackOff: make}},
				Dial: func(context.Context, string, string) (net.Conn, error) {
					dials.Add(1)
					return nil, errors.New("nobody there")
				},
			})
			_ = later(func() error { return pub.Publish("127.0.0.1:1/a", newMessage("x")) })
			require.Eventually(t, func() bool { return dials.Load() > 0 }, patience, time.Millisecond)
			time.Sleep(50 * time.Millisecond) // real time: nothing must happen
			require.Equal(t, int32(1), dials.Load())
		})
	}
}

type panicking struct{}

func (panicking) NextBackOff() time.Duration { panic("oops") }
func (panicking) Reset()                     { panic("oops") }

// badLogger is a logger that panics.
type badLogger struct{ calls *atomic.Int32 }

func (l badLogger) oops() { l.calls.Add(1); panic("oops") }

func (l badLogger) Error(string, error, watermill.LogFields)         { l.oops() }
func (l badLogger) Info(string, watermill.LogFields)                 { l.oops() }
func (l badLogger) Debug(string, watermill.LogFields)                { l.oops() }
func (l badLogger) Trace(string, watermill.LogFields)                { l.oops() }
func (l badLogger) With(watermill.LogFields) watermill.LoggerAdapter { l.oops(); return nil }

func TestCallback_LoggerThatPanicsIsIgnored(t *testing.T) {
	logger := badLogger{new(atomic.Int32)}
	m := misbehaviour{acts: []func(){panics}}
	ps, err := buffstreams.NewPubSub(buffstreams.PubSubConfig{
		Manager: buffstreams.ManagerConfig{
			Logger: logger, Acked: buffstreams.AckedConfig{Reconnect: brisk()},
			Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
				m.next()
				return (&net.Dialer{}).DialContext(ctx, network, address)
			},
		},
		Subscriber: buffstreams.SubscriberConfig{MaxAttempts: 1},
	}, logger)
	require.NoError(t, err)
	messages := subscribe(t, ps.Subscriber, "a")
	require.NoError(t, ps.Publish("a", newMessage("x"), newMessage("y")))
	receive(t, messages).Nack()
	receiveAcked(t, messages, 1)
	require.NoError(t, ps.Close())
	require.NotZero(t, logger.calls.Load())
}

// badOutbox is an Outbox whose Append and Read misbehave first.
type badOutbox struct {
	store.Outbox
	append, read, streams, settle misbehaviour
}

func (o *badOutbox) Append(ctx context.Context, k store.Key, msgs ...[]byte) (uint64, error) {
	o.append.next()
	return o.Outbox.Append(ctx, k, msgs...)
}

func (o *badOutbox) Read(k store.Key, from uint64, most int) (store.Batch, error) {
	o.read.next()
	return o.Outbox.Read(k, from, most)
}

func (o *badOutbox) Streams() []store.Stream {
	o.streams.next()
	return o.Outbox.Streams()
}

func (o *badOutbox) Settle(k store.Key, through uint64, ranges ...store.Range) error {
	o.settle.next()
	return o.Outbox.Settle(k, through, ranges...)
}

func newBadOutbox(t *testing.T) *badOutbox {
	box, err := outbox.Open(outbox.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = box.Close() })
	return &badOutbox{Outbox: box}
}

// TestCallback_OutboxThatPanicsFailsThatCall: of a message whose Append panicked nothing is known.
func TestCallback_OutboxThatPanicsFailsThatCall(t *testing.T) {
	h := newHouse(t, buffstreams.ManagerConfig{})
	messages := subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
	box := newBadOutbox(t)
	box.append.acts, box.streams.acts = []func(){panics}, []func(){nothing, panics}
	pub := h.newPublisher(t, func(c *buffstreams.PublisherConfig) { c.Outbox = box })
	var failed *buffstreams.PublishError
	require.ErrorAs(t, pub.Publish(h.topic("a"), newMessage("x")), &failed)
	require.Len(t, failed.Unknown, 1)
	require.NoError(t, pub.Publish(h.topic("a"), newMessage("y")))
	require.Equal(t, []string{"y"}, receiveAcked(t, messages, 1))
}

func TestCallback_PublisherCloseNamesWhatDoesNotReturn(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, c *buffstreams.PublisherConfig, block func()){
		"Marshaler": func(_ *testing.T, c *buffstreams.PublisherConfig, block func()) {
			c.Marshaler = marshalFunc(func(dst []byte, _ *message.Message) ([]byte, error) { block(); return dst, nil })
		},
		"Outbox": func(t *testing.T, c *buffstreams.PublisherConfig, block func()) {
			box := newBadOutbox(t)
			box.append.acts = []func(){block}
			c.Outbox = box
		},
		"PublisherConfig.Outbox has not": func(t *testing.T, c *buffstreams.PublisherConfig, block func()) {
			box := newBadOutbox(t)
			box.read.acts = []func(){block}
			c.Outbox = box
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, buffstreams.ManagerConfig{})
			subscribe(t, h.newSubscriber(t, nil), h.topic("a"))
			b := blocker{make(chan struct{}, 10), make(chan struct{})}
			cfg := h.publisher
			cfg.CloseTimeout = 200 * time.Millisecond
			change(t, &cfg, b.block)
			pub, err := buffstreams.NewPublisher(cfg, nil)
			require.NoError(t, err)
			published := later(func() error { return pub.Publish(h.topic("a"), newMessage("x")) })
			<-b.entered
			first, second := later(pub.Close), later(pub.Close)
			require.ErrorContains(t, requireSoon(t, first), name)
			require.ErrorContains(t, requireSoon(t, second), name)
			close(b.release)
			_ = requireResult(t, published)
		})
	}
}

// TestCallback_PoolDialThatMisbehavesIsAnError of DialTCP.
func TestCallback_PoolDialThatMisbehavesIsAnError(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	for name, act := range map[string]func(){"panics": panics, "nil": nothing, "blocks": func() { <-block }} {
		_, err := pool.DialTCP(pool.WriterConfig{
			Address: "127.0.0.1:1", DialTimeout: 100 * time.Millisecond,
			Dial:  func(context.Context, string, string) (net.Conn, error) { act(); return nil, nil },
			Retry: &pool.RetryConfig{MaxAttempts: 1, BackOff: func() backoff.BackOff { panic("oops") }},
		})
		require.ErrorContains(t, err, "Dial", name)
	}
}
