package hostile

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/internal/wire"
)

const (
	flowTopic = "legitimate"
	flowBatch = 128
	flowSize  = 100 // bytes of a payload
)

// flow is a publisher whose messages are numbered, and the subscriber that counts them.
type flow struct {
	pub     *buffstreams.Publisher
	topic   string
	batch   message.Messages
	sent    uint64
	handled atomic.Uint64
	wrong   atomic.Pointer[string] // the first message out of order
}

func newFlow(pub *buffstreams.Publisher, topic string) *flow {
	f := &flow{pub: pub, topic: topic}
	for range flowBatch {
		f.batch = append(f.batch, message.NewMessage("legitimate", make([]byte, flowSize)))
	}
	return f
}

// take counts a message. Those of strangers, who may publish here as well, are passed over.
func (f *flow) take(msg *message.Message) {
	if msg.UUID == "legitimate" && len(msg.Payload) == flowSize {
		seq, want := binary.BigEndian.Uint64(msg.Payload), f.handled.Load()+1
		if seq != want {
			what := fmt.Sprintf("got %d, expected %d", seq, want)
			f.wrong.CompareAndSwap(nil, &what)
		}
		f.handled.Store(seq)
	}
	msg.Ack()
}

// run publishes at a rate, or as fast as it goes with 0, until stop is closed.
func (f *flow) run(t *testing.T, rate float64, stop <-chan struct{}) {
	start := time.Now()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		if rate > 0 {
			time.Sleep(time.Until(start.Add(time.Duration(float64(n*flowBatch) / rate * float64(time.Second)))))
		}
		for _, msg := range f.batch {
			f.sent++
			binary.BigEndian.PutUint64(msg.Payload, f.sent)
		}
		if err := f.pub.Publish(f.topic, f.batch...); err != nil {
			t.Errorf("the legitimate publisher: %v", err)
			return
		}
	}
}

// during runs the flow while work does, and returns how many messages were handled in a second.
func (f *flow) during(t *testing.T, rate float64, work func()) float64 {
	stop, done := make(chan struct{}), make(chan struct{})
	start, before := time.Now(), f.handled.Load()
	go func() { // ends when stop is closed
		defer close(done)
		f.run(t, rate, stop)
	}()
	work()
	handled := float64(f.handled.Load()-before) / time.Since(start).Seconds()
	close(stop)
	<-done
	return handled
}

// capacity is what the flow reaches when nothing holds it back: it is measured over real time, after a while of the same.
func (f *flow) capacity(t *testing.T) float64 {
	f.during(t, 0, func() { time.Sleep(300 * time.Millisecond) })
	return f.during(t, 0, func() { time.Sleep(1500 * time.Millisecond) })
}

// complete waits until everything that was sent is handled.
func (f *flow) complete(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return f.handled.Load() == f.sent }, patience, 10*time.Millisecond,
		"sent %d", f.sent)
	if what := f.wrong.Load(); what != nil {
		t.Errorf("the legitimate flow: %s", *what)
	}
}

// eavesdropper is a Manager's Dial: it counts the connections to an address, and learns from the first what an Open says.
type eavesdropper struct {
	address atomic.Pointer[string]
	dials   atomic.Int64
	heard   chan *wire.Open
}

func (e *eavesdropper) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil || e.address.Load() == nil || address != *e.address.Load() {
		return conn, err
	}
	e.dials.Add(1)
	return &tapped{Conn: conn, heard: e.heard}, nil
}

// tapped looks for an Open in what is written first.
type tapped struct {
	net.Conn
	mu    sync.Mutex
	said  []byte
	quiet bool
	heard chan<- *wire.Open
}

func (c *tapped) Write(b []byte) (int, error) {
	c.mu.Lock()
	if !c.quiet {
		c.said = append(c.said, b...)
		c.listen()
	}
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *tapped) listen() {
	for at := 0; at+4 <= len(c.said); {
		end := at + 4 + int(binary.BigEndian.Uint32(c.said[at:]))
		if end > len(c.said) {
			return
		}
		var f wire.Frame
		if err := proto.Unmarshal(bytes.Clone(c.said[at+4:end]), &f); err == nil && f.GetOpen() != nil {
			c.quiet, c.said = true, nil
			select {
			case c.heard <- f.GetOpen():
			default:
			}
			return
		}
		at = end
	}
}

func subscribe(t *testing.T, m *buffstreams.Manager, log *logWatch, topic, group string, handle func(*message.Message)) {
	t.Helper()
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{Manager: m, ConsumerGroup: group}, log)
	require.NoError(t, err)
	messages, err := sub.Subscribe(t.Context(), topic)
	require.NoError(t, err)
	done := make(chan struct{})
	go func() { // ends when the subscriber is closed
		defer close(done)
		for msg := range messages {
			handle(msg)
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, sub.Close())
		<-done
	})
}
