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
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
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
// same window, and by the bridge from this library. Beside them, in turns, what publisher, source and bridge cost into an engine that
// confirms at once: where the cores are all at work the ratio cannot be more than what the client costs of the sum of both.
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
			base := s.base(t)
			eachSize(t, func(t *testing.T, size, n int, payload []byte) {
				f := &fixture{T: t, subject: s, base: base}
				var own, ours, alone cost
				for range 3 { // the best of three, in turns
					f.topic = "m" + watermill.NewShortUUID()
					f.prepare()
					own.measure(t, n, func() { best[s.name](t, f.base, f.topic, n, payload) })
					f.topic = "m" + watermill.NewShortUUID()
					f.prepare()
					ours.measure(t, n, func() { measureBridge(t, f.url(""), f.topic, n, payload) })
					alone.measure(t, n, func() { measureBridge(t, "none://here", "t", n, payload, none(0)) })
				}
				fmt.Printf("| %s | %d B | %.0f | %.0f | %.2f | %.1f | %.1f | %.1f | %.2f | %.2f |\n", s.name, size, own.rate, ours.rate, ours.rate/own.rate,
					own.cpu, alone.cpu, ours.cpu, own.cpu/ours.cpu, own.cpu/(own.cpu+alone.cpu))
			})
		})
	}
}

// TestMeasure_BridgeAlone: what publisher, source and bridge cost without an engine, into a destination that confirms batches of
// any size after a while.
func TestMeasure_BridgeAlone(t *testing.T) {
	if os.Getenv(measured) == "" {
		t.Skip("make engines_measure")
	}
	for _, delay := range []time.Duration{0, 10 * time.Millisecond} {
		eachSize(t, func(t *testing.T, size, n int, payload []byte) {
			var ours cost
			for range 3 {
				ours.measure(t, n, func() { measureBridge(t, "none://here", "t", n, payload, none(delay)) })
			}
			fmt.Printf("| nothing, after %v | %d B | | %.0f | | | %.1f | |\n", delay, size, ours.rate, ours.cpu)
		})
	}
}

// eachSize calls f with each size of a message, and how many there are of it.
func eachSize(t *testing.T, f func(t *testing.T, size, n int, payload []byte)) {
	for _, size := range []int{110, 4096} {
		t.Run(strconv.Itoa(size), func(t *testing.T) { f(t, size, amount(size), make([]byte, size)) })
	}
}

// none is the driver of confirming.
func none(delay time.Duration) engines.Driver {
	return func() driver.Spec {
		return driver.Spec{Name: "none", Schemes: []string{"none"}, OpenBroker: func(context.Context, *driver.Config) (driver.Broker, error) {
			return confirming{delay: delay}, nil
		}}
	}
}

// confirming is an engine that confirms what it gets, and has nothing to give.
type confirming struct {
	driver.Broker
	delay time.Duration
}

func (c confirming) Publish(context.Context, string, []*message.Message) error {
	if c.delay > 0 {
		time.Sleep(c.delay) // the round trip of an engine
	}
	return nil
}

func (confirming) Declare(context.Context, string, string) error { return nil }

func (confirming) Close() error { return nil }

// prepare makes the topic, and a group where the engine drops messages without one.
func (f *fixture) prepare() {
	f.Helper()
	sub, err := f.open("").Group("none")
	require.NoError(f, err)
	require.NoError(f, sub.(message.SubscribeInitializer).SubscribeInitialize(f.topic))
}

// cost is what messages cost at best: in time, and in CPU time, of all processes that the test runs.
type cost struct{ rate, cpu float64 } // messages a second, microseconds a message

func (c *cost) measure(t *testing.T, n int, f func()) {
	t.Helper()
	began, before := time.Now(), cpuTime(t)
	f()
	rate, cpu := float64(n)/time.Since(began).Seconds(), (cpuTime(t)-before).Seconds()*1e6/float64(n)
	c.rate = max(c.rate, rate)
	if c.cpu == 0 || cpu < c.cpu {
		c.cpu = cpu
	}
}

// cpuTime is what this process, the servers that it has started and what they have started have used. Where there is no /proc, it
// is 0.
func cpuTime(t *testing.T) (total time.Duration) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	parents, ticks := map[int]int{}, map[int]int{}
	for _, file := range files {
		content, _ := os.ReadFile(file) // the process may have ended
		_, rest, found := strings.Cut(string(content), ") ")
		if fields := strings.Fields(rest); found && len(fields) > 14 {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			parents[pid], _ = strconv.Atoi(fields[1])
			for _, field := range fields[11:15] { // user and system time, its own and that of its children that have ended
				n, _ := strconv.Atoi(field)
				ticks[pid] += n
			}
		}
	}
	for pid, n := range ticks {
		for at := pid; at > 0; at = parents[at] {
			if at == os.Getpid() {
				total += time.Duration(n) * 10 * time.Millisecond
				break
			}
		}
	}
	return total
}

// measureBridge returns when the bridge has delivered all and ended.
func measureBridge(t *testing.T, to, topic string, n int, payload []byte, more ...engines.Driver) {
	t.Helper()
	source := "unix://" + filepath.Join(shortDir(t), "s")
	b, stop := runBridge(t, bridge.Config{
		From: source + "?window=65536", To: to, Topics: []bridge.Topic{{From: "in", To: topic}}, Key: "k", MaxInFlight: window, LookBack: -1,
		Options: engines.Options{Drivers: more},
	})
	pub, err := engines.Open(t.Context(), source+"?window=65536&confirm=enqueued")
	require.NoError(t, err)
	defer func() { assert.NoError(t, pub.Close()) }()
	batch := make([]*message.Message, min(500, 1<<19/len(payload))) // what a publisher would put into a call
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
	require.NoError(t, stop())
	require.EqualValues(t, n, b.Stats().Forwarded)
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
