package peers

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/bridge"
	engine "github.com/buffstreams/watermill-buffstreams/engines/nats"
)

// bridgeWindow is how many messages a bridge, or the client that it is compared with, has on their way to JetStream.
const bridgeWindow = bridge.DefaultMaxInFlight

// Two ways into a JetStream in files. What arrives is what its consumer gets, which is the same for both.
var (
	Bridge = Peer{
		Name: "buffstreams, bridged into JetStream", Window: 2 * natsWindow, Unordered: true, // order is by key
		Guarantee: "the send window has it; it is sent again until JetStream has stored it",
		Settings:  "engines/bridge with its defaults and a key, which listens on a unix socket; all in one process with the embedded nats-server",
		Receive:   receiveBridged,
		Dial:      func(s Setup, to Receiver) (Sender, error) { return s.dialOurs(buffstreams.ConfirmEnqueued, to) },
	}
	JetStreamFeed = Peer{
		Name: "nats.go into JetStream, PublishMsgAsync", Window: 2 * natsWindow,
		Guarantee: "none yet: at most 4096 wait for the server's acks",
		Settings:  "file storage, the headers that the bridge makes; nats-server embedded",
		Receive: func(s Setup, tally *measure.Tally) (Receiver, error) {
			sink, err := s.openSink(tally)
			return sink, err
		},
		Dial: dialFeed,
	}
)

// storedSink is an embedded nats-server with the turn's stream, and a consumer of it that needs no acks.
type storedSink struct{ at }

func (s Setup) openSink(tally *measure.Tally) (_ *storedSink, err error) {
	address, stop, err := StartNATS(s.Dir)
	if err != nil {
		return nil, err
	}
	all := &storedSink{at{address: address, ends: ends{stop}}}
	defer func() {
		if err != nil {
			err = errors.Join(err, all.Close())
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := makeStream(ctx, address, s.Name); err != nil {
		return nil, err
	}
	conn, err := nats.Connect(address)
	if err != nil {
		return nil, err
	}
	all.before(func() error { conn.Close(); return nil })
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	consumer, err := js.CreateConsumer(ctx, s.Name, jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
	if err != nil {
		return nil, err
	}
	consuming, err := consumer.Consume(func(m jetstream.Msg) { tally.Arrive(m.Data()) }, jetstream.PullMaxMessages(bridgeWindow))
	if err != nil {
		return nil, err
	}
	all.before(func() error { consuming.Stop(); return nil })
	return all, nil
}

// before adds what is closed before the rest.
func (s *storedSink) before(f func() error) { s.ends = append(ends{f}, s.ends...) }

// makeStream makes the stream as a bridge does.
func makeStream(ctx context.Context, address, name string) error {
	e, err := engines.Open(ctx, address, engine.Driver)
	if err != nil {
		return err
	}
	sub, err := e.Group("none")
	if initializer, ok := sub.(message.SubscribeInitializer); ok {
		err = initializer.SubscribeInitialize(name)
	}
	return errors.Join(err, e.Close())
}

func receiveBridged(s Setup, tally *measure.Tally) (Receiver, error) {
	to, err := s.openSink(tally)
	if err != nil {
		return nil, err
	}
	source := "unix://" + filepath.Join(s.Dir, "s")
	b, err := bridge.Open(context.Background(), bridge.Config{
		From: source, To: to.address, Topics: []bridge.Topic{{From: s.Name}}, Key: orderKey, LookBack: -1,
		Options: engines.Options{Drivers: []engines.Driver{engine.Driver}},
	})
	if err != nil {
		return nil, errors.Join(err, to.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var failed error
	wg.Go(func() { failed = b.Run(ctx) }) // ends with ctx
	stop := func() error {
		cancel()
		wg.Wait()
		return failed
	}
	to.before(stop)
	return at{source, to.ends}, nil
}

// feed is the fastest that nats.go has into JetStream.
type feed struct {
	conn    *nats.Conn
	js      jetstream.JetStream
	subject string
	keys    []string
	next    int
}

func dialFeed(s Setup, to Receiver) (Sender, error) {
	conn, err := nats.Connect(to.Address())
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(bridgeWindow))
	if err != nil {
		conn.Close()
		return nil, err
	}
	return &feed{conn: conn, js: js, subject: s.Name, keys: s.keys()}, nil
}

func (f *feed) Send(_ int, batch [][]byte) error {
	for _, payload := range batch {
		uuid := watermill.NewUUID()
		header := nats.Header{nats.MsgIdHdr: {uuid}, "_watermill_message_uuid": {uuid}}
		if len(f.keys) > 0 {
			header[orderKey] = []string{f.keys[f.next%len(f.keys)]}
			f.next++
		}
		m := &nats.Msg{Subject: f.subject, Header: header, Data: payload}
		if _, err := f.js.PublishMsgAsync(m, jetstream.WithStallWait(patience)); err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) Flush() error {
	select {
	case <-f.js.PublishAsyncComplete():
		return nil
	case <-time.After(patience):
		return errors.New("peers: JetStream does not ack what was published")
	}
}

func (f *feed) Close() error {
	f.conn.Close()
	return nil
}
