package tests

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp091 "github.com/rabbitmq/amqp091-go"
	goredis "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/bridge"
)

// measured is set by make engines_measure: the figures of docs/engines.md.
const measured = "ENGINES_MEASURE"

// window is how many messages are on their way, in the bridge and in what it is compared with.
const window = 4096

// amount is how many messages of a size are sent.
func amount(size int) int {
	n := 200_000
	if given, err := strconv.Atoi(os.Getenv(measured)); err == nil && given > 1 {
		n = given
	}
	if size > 1000 {
		n /= 5
	}
	return n
}

// TestMeasure_BridgeBesideTheDriversBest is E1 and E2: messages a second into each engine, by its own client from memory with the
// same window, and by the bridge from this library.
func TestMeasure_BridgeBesideTheDriversBest(t *testing.T) {
	if os.Getenv(measured) == "" {
		t.Skip("make engines_measure")
	}
	best := map[string]func(t *testing.T, address, topic string, n int, payload []byte){
		"nats": bestNATS, "kafka": bestKafka, "redis": bestRedis, "amqp": bestAMQP, "postgres": bestPostgres,
	}
	for _, s := range subjects() {
		if best[s.name] == nil || only() != "" && !strings.Contains(","+only()+",", ","+s.name+",") {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			f := &fixture{T: t, subject: s, base: s.base(t)}
			for _, size := range []int{110, 4096} {
				n, payload := amount(size), make([]byte, size)
				var own, ours float64
				for range 3 { // the best of three, in turns
					f.topic = "m" + watermill.NewShortUUID()
					f.prepare()
					began := time.Now()
					best[s.name](t, f.base, f.topic, n, payload)
					own = max(own, float64(n)/time.Since(began).Seconds())
					f.topic = "m" + watermill.NewShortUUID()
					f.prepare()
					ours = max(ours, float64(n)/measureBridge(t, f, n, payload).Seconds())
				}
				fmt.Printf("| %s | %d B | %.0f | %.0f | %.2f |\n", s.name, size, own, ours, ours/own)
			}
		})
	}
}

// prepare makes the topic, and a group where the engine drops messages without one.
func (f *fixture) prepare() {
	f.Helper()
	sub, err := f.open("").Group("none")
	require.NoError(f, err)
	require.NoError(f, sub.(message.SubscribeInitializer).SubscribeInitialize(f.topic))
}

// measureBridge returns how long the bridge takes, from the first to the last message confirmed.
func measureBridge(t *testing.T, to *fixture, n int, payload []byte) time.Duration {
	t.Helper()
	source := "unix://" + filepath.Join(shortDir(t), "s")
	b, stop := runBridge(t, bridge.Config{
		From: source + "?window=65536", To: to.url(""), Topics: []bridge.Topic{{From: "in", To: to.topic}}, Key: "k", MaxInFlight: window, LookBack: -1,
	})
	pub, err := engines.Open(t.Context(), source+"?window=65536&confirm=enqueued")
	require.NoError(t, err)
	defer func() { assert.NoError(t, pub.Close()) }()
	batch := make([]*message.Message, 500)
	began := time.Now()
	for sent := 0; sent < n; {
		some := batch[:min(len(batch), n-sent)]
		for i := range some {
			some[i] = message.NewMessage(strconv.Itoa(sent), payload)
			some[i].Metadata.Set("k", strconv.Itoa(sent%1000))
			sent++
		}
		require.NoError(t, pub.Publisher().Publish("in", some...))
	}
	for b.Stats().Forwarded < int64(n) {
		time.Sleep(time.Millisecond)
		require.Less(t, time.Since(began), 10*time.Minute)
	}
	took := time.Since(began)
	require.NoError(t, stop())
	require.EqualValues(t, n, b.Stats().Forwarded)
	return took
}

func bestNATS(t *testing.T, address, topic string, n int, payload []byte) {
	nc, err := natsgo.Connect(address)
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(window))
	require.NoError(t, err)
	for i := range n {
		m := &natsgo.Msg{Subject: topic, Data: payload, Header: natsgo.Header{
			"Nats-Msg-Id": {topic + strconv.Itoa(i)}, "_watermill_message_uuid": {strconv.Itoa(i)}, "k": {strconv.Itoa(i % 1000)},
		}}
		_, err := js.PublishMsgAsync(m, jetstream.WithStallWait(time.Minute))
		require.NoError(t, err)
	}
	<-js.PublishAsyncComplete()
}

func bestKafka(t *testing.T, address, topic string, n int, payload []byte) {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(strings.TrimPrefix(address, "kafka://"), ",")...), kgo.MaxBufferedRecords(window),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	require.NoError(t, err)
	defer client.Close()
	for i := range n {
		client.Produce(context.Background(), &kgo.Record{Topic: topic, Value: payload, Key: []byte(strconv.Itoa(i % 1000)), Headers: []kgo.RecordHeader{
			{Key: "_watermill_message_uuid", Value: []byte(strconv.Itoa(i))}, {Key: "k", Value: []byte(strconv.Itoa(i % 1000))},
		}}, nil)
	}
	require.NoError(t, client.Flush(context.Background()))
}

// lanes calls f for parts of 500 messages, as many at a time as fit into the window.
func lanes(n int, f func(from, to int)) {
	var wg sync.WaitGroup
	parts := make(chan int)
	for range window / 500 {
		wg.Go(func() {
			for from := range parts {
				f(from, min(from+500, n))
			}
		})
	}
	for from := 0; from < n; from += 500 {
		parts <- from
	}
	close(parts)
	wg.Wait()
}

func bestRedis(t *testing.T, address, topic string, n int, payload []byte) {
	client := goredis.NewClient(&goredis.Options{Addr: strings.TrimSuffix(strings.TrimPrefix(address, "redis://"), "/0")})
	defer func() { _ = client.Close() }()
	lanes(n, func(from, to int) {
		pipe := client.Pipeline()
		for i := from; i < to; i++ {
			pipe.XAdd(context.Background(), &goredis.XAddArgs{Stream: topic, Values: []any{
				"_watermill_message_uuid", strconv.Itoa(i), "metadata", strconv.Itoa(i % 1000), "payload", payload,
			}})
		}
		_, err := pipe.Exec(context.Background())
		require.NoError(t, err)
	})
}

func bestAMQP(t *testing.T, address, topic string, n int, payload []byte) {
	conn, err := amqp091.Dial("amqp://guest:guest@" + strings.TrimPrefix(address, "amqp://"))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.Confirm(false))
	open := make(chan *amqp091.DeferredConfirmation, window)
	done := make(chan struct{})
	go func() { // ends when open is closed
		defer close(done)
		for c := range open {
			c.Wait()
		}
	}()
	for i := range n {
		c, err := ch.PublishWithDeferredConfirm(topic, "", true, false, amqp091.Publishing{
			Body: payload, DeliveryMode: amqp091.Persistent, Headers: amqp091.Table{"_watermill_message_uuid": strconv.Itoa(i), "k": strconv.Itoa(i % 1000)},
		})
		require.NoError(t, err)
		open <- c
	}
	close(open)
	<-done
}

func bestPostgres(t *testing.T, address, topic string, n int, payload []byte) {
	pool, err := pgxpool.New(context.Background(), address)
	require.NoError(t, err)
	defer pool.Close()
	lanes(n, func(from, to int) {
		uuids, payloads, metadata := make([]string, to-from), make([][]byte, to-from), make([]string, to-from)
		for i := range uuids {
			uuids[i], payloads[i], metadata[i] = strconv.Itoa(from+i), payload, `{"k":"`+strconv.Itoa((from+i)%1000)+`"}`
		}
		_, err := pool.Exec(context.Background(), `INSERT INTO "watermill_`+topic+`" (uuid, payload, metadata, transaction_id)
			SELECT u, p, m::json, pg_current_xact_id() FROM unnest($1::text[], $2::bytea[], $3::text[]) AS x(u, p, m)`, uuids, payloads, metadata)
		require.NoError(t, err)
	})
}
