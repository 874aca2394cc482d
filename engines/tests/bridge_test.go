package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/bridge"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// runBridge runs a bridge until the returned function is called, which returns what Run did.
func runBridge(t *testing.T, cfg bridge.Config) (*bridge.Bridge, func() error) {
	t.Helper()
	cfg.Options.Drivers = append(cfg.Options.Drivers, drivers()...)
	b, err := bridge.Open(t.Context(), cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { // ends with ctx
		err := b.Run(ctx)
		if ctx.Err() == nil {
			t.Errorf("the bridge has ended by itself: %v", err)
		}
		done <- err
	}()
	var result error
	ended := false
	stop := func() error {
		cancel()
		if !ended {
			result, ended = <-done, true
		}
		return result
	}
	t.Cleanup(func() { _ = stop() })
	return b, stop
}

// account is what arrived at the destination: numbers by key.
type account struct {
	seen  map[string]int
	order map[string][]int
}

// take reads messages until n different ones have come.
func take(t *testing.T, messages <-chan *message.Message, n int) account {
	t.Helper()
	a := account{seen: map[string]int{}, order: map[string][]int{}}
	for len(a.seen) < n {
		a.add(receive(t, messages))
	}
	return a
}

func (a account) add(msg *message.Message) {
	number, _ := strconv.Atoi(string(msg.Payload))
	key := msg.Metadata.Get("k")
	a.seen[string(msg.Payload)]++
	a.order[key] = append(a.order[key], number)
	msg.Ack()
}

// assertExact fails unless each message is there once, and in order by key.
func (a account) assertExact(t *testing.T) {
	t.Helper()
	for payload, times := range a.seen {
		if times != 1 {
			assert.Fail(t, "a message is there more than once", "%s: %d times", payload, times)
			return
		}
	}
	for key, numbers := range a.order {
		assert.IsIncreasing(t, numbers, "key %s", key)
	}
}

// TestBridge_CarriesBetweenAnyTwo: every engine as source and as destination.
func TestBridge_CarriesBetweenAnyTwo(t *testing.T) {
	const n, keys = 300, 10
	eachSubject(t, func(t *testing.T, from *fixture) {
		for _, s := range subjects() {
			t.Run("to "+s.name, func(t *testing.T) {
				from := &fixture{T: t, subject: from.subject, base: from.subject.base(t), topic: "from-" + watermill.NewShortUUID()}
				to := &fixture{T: t, subject: s, base: s.base(t), topic: "to-" + watermill.NewShortUUID()}
				cfg := bridge.Config{
					From: from.url(""), To: to.url(""), Topics: []bridge.Topic{{From: from.topic, To: to.topic}}, Key: "k",
					Batch: 16, Logger: watermill.NopLogger{},
				}
				source, destination := from.open("group=bridge&max_in_flight=64"+keyIfKafka(from)), to.open("max_in_flight=64&key=k")
				if from.name == "gochannel" {
					cfg.From, cfg.Source = "", source
				}
				if to.name == "gochannel" {
					cfg.To, cfg.Destination = "", destination
				}
				arrived := to.subscribe(destination, "reader")
				first := !from.lasting || from.name == "amqp" // they have messages for those who have subscribed
				if first {
					b, _ := runBridge(t, cfg)
					require.Eventually(t, func() bool { return b.Ready(t.Context()) == nil }, patience, time.Millisecond)
				}
				if from.name == "buffstreams" { // the bridge listens there
					source = from.open("")
				}
				from.publish(source, 0, n, keys)
				if !first {
					runBridge(t, cfg)
				}
				take(t, arrived, n).assertExact(t)
				silence(t, arrived, 50*time.Millisecond)
			})
		}
	})
}

// lastingPair are fixtures of two engines that outlive processes.
func lastingPair(t *testing.T) (from, to *fixture) {
	s := subjects()
	return &fixture{T: t, subject: s[3], base: s[3].base(t), topic: "from-" + watermill.NewShortUUID()},
		&fixture{T: t, subject: s[2], base: s[2].base(t), topic: "to-" + watermill.NewShortUUID()}
}

// runBridgeChild is a bridge in a process of its own, until it is killed.
func runBridgeChild() error {
	inFlight, _ := strconv.Atoi(os.Getenv("TEST_IN_FLIGHT"))
	batch, _ := strconv.Atoi(os.Getenv("TEST_BATCH"))
	lookBack, _ := strconv.Atoi(os.Getenv("TEST_LOOK_BACK"))
	pace, _ := time.ParseDuration(os.Getenv("TEST_PACE")) // so that not all is over before it is killed
	b, err := bridge.Open(context.Background(), bridge.Config{
		From: os.Getenv("TEST_FROM"), To: os.Getenv("TEST_TO"), Key: "k", MaxInFlight: inFlight, Batch: batch, LookBack: lookBack, Options: engines.Options{Drivers: drivers()},
		Topics: []bridge.Topic{{From: os.Getenv("TEST_TOPIC"), To: os.Getenv("TEST_TO_TOPIC")}},
		Hooks: bridge.Hooks{OnForward: func(_ bridge.Topic, n, _ int, _ time.Duration) {
			fmt.Println(n)
			time.Sleep(pace)
		}},
	})
	if err != nil {
		return err
	}
	return b.Run(context.Background())
}

// TestBridge_KilledLosesNoneAndDuplicatesNone: kill -9 in the middle, again and again, with each engine as the source and as the
// destination.
func TestBridge_KilledLosesNoneAndDuplicatesNone(t *testing.T) {
	for _, from := range subjects() {
		for _, to := range subjects() {
			if from.name == "gochannel" || !to.lasting || only() != "" && !strings.Contains(only(), from.name) && !strings.Contains(only(), to.name) {
				continue
			}
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				t.Parallel()
				testKilledBridge(t, &fixture{T: t, subject: from, base: from.base(t), topic: "from-" + watermill.NewShortUUID()},
					&fixture{T: t, subject: to, base: to.base(t), topic: "to-" + watermill.NewShortUUID()})
			})
		}
	}
}

func testKilledBridge(t *testing.T, from, to *fixture) {
	const n, keys, kills = 10000, 50, 5
	declare := func(e *engines.Engine, f *fixture, group string) {
		sub, err := e.Group(group)
		require.NoError(t, err)
		require.NoError(t, sub.(message.SubscribeInitializer).SubscribeInitialize(f.topic))
	}
	asSource := keyIfKafka(from)
	if from.name == "amqp" {
		asSource = "members=1" // as the bridge has it
	}
	source, destination := from.open(asSource), to.open("group=reader&max_in_flight=1000"+to.slow())
	declare(destination, to, "reader") // RabbitMQ has messages for groups that are there
	if from.name == "amqp" {
		declare(source, from, "bridge")
	}
	go from.publish(source, 0, n, keys) // ends before all have arrived
	forwarded := 0
	for kill := range kills {
		c := startChild(t, "bridge", "TEST_FROM="+from.url(""), "TEST_TO="+to.url(""), "TEST_TOPIC="+from.topic,
			"TEST_TO_TOPIC="+to.topic, "TEST_IN_FLIGHT=500", "TEST_BATCH=50", "TEST_PACE=3ms",
			"TEST_LOOK_BACK="+strconv.Itoa(n)) // a partition of Kafka's can be read again by a later bridge only
		for mine := 0; mine < n/(kills+2); {
			lines, _ := strconv.Atoi(c.next(t))
			mine += lines
			forwarded += lines
		}
		t.Logf("kill %d after %d confirmed", kill+1, forwarded)
		c.kill()
	}
	runBridge(t, bridge.Config{
		From: from.url(""), To: to.url(""), Topics: []bridge.Topic{{From: from.topic, To: to.topic}}, Key: "k", MaxInFlight: 500, LookBack: n,
	})
	arrived := to.subscribe(destination, "reader")
	a := take(t, arrived, n)
	a.drain(arrived, 300*time.Millisecond)
	if to.name == "amqp" { // which cannot be asked what it has
		a.assertOrder(t)
		return
	}
	ids, _, err := destination.Recent(t.Context(), to.topic, 2*n)
	require.NoError(t, err)
	slices.Sort(ids)
	stored := len(ids)
	assert.Equal(t, n, stored, "stored")
	assert.Len(t, slices.Compact(ids), n, "of different names at the source")
	a.assertExact(t)
}

// TestBridge_RefusedMessagesBecomeDeadLetters: the destination refuses one in a hundred.
func TestBridge_RefusedMessagesBecomeDeadLetters(t *testing.T) {
	for _, direction := range []string{"kafka to nats", "nats to kafka"} {
		t.Run(direction, func(t *testing.T) {
			t.Parallel()
			from, to := lastingPair(t)
			if direction == "nats to kafka" {
				from, to = to, from
			}
			const n = 1000
			source, destination := from.open("max_message_size=2000000"+onePartition(from)), to.open("max_in_flight=100&max_message_size=2000&redeliver_after=1m"+onePartition(to))
			var batch []*message.Message
			for i := range n {
				msg := messageOf(strconv.Itoa(i))
				if i%100 == 50 {
					msg.Payload = append(msg.Payload, make([]byte, 3000)...)
				}
				batch = append(batch, msg)
			}
			require.NoError(t, source.Publisher().Publish(from.topic, batch...))
			var refused atomic.Int64
			b, _ := runBridge(t, bridge.Config{
				From: from.url(""), To: to.url("max_message_size=2000" + onePartition(to)), Topics: []bridge.Topic{{From: from.topic, To: to.topic}},
				DeadLetterTopic: "dead-" + from.topic,
				Hooks: bridge.Hooks{OnRefused: func(_ bridge.Topic, _ *message.Message, err error) {
					refused.Add(1)
					if !errors.Is(err, driver.ErrTooLarge) {
						panic("a hook's panic ends nothing")
					}
				}},
			})
			take(t, to.subscribe(destination, "reader"), n-n/100).assertExact(t)
			dead := &fixture{T: t, subject: from.subject, topic: "dead-" + from.topic}
			letters := dead.subscribe(source, "reader")
			for range n / 100 {
				letter := receive(t, letters)
				letter.Ack()
				assert.Equal(t, from.topic, letter.Metadata.Get(middleware.PoisonedTopicKey))
				assert.Contains(t, letter.Metadata.Get(middleware.ReasonForPoisonedKey), "too large")
			}
			assert.EqualValues(t, n/100, refused.Load())
			assert.EqualValues(t, n/100, b.Stats().Refused)
		})
	}
}

// TestBridge_EndsAtARefusedMessageWithoutDeadLetters: it says why, and the message and what is behind it stay at the source.
func TestBridge_EndsAtARefusedMessageWithoutDeadLetters(t *testing.T) {
	from, to := lastingPair(t)
	source, destination := from.open("partitions=1"), to.open("max_in_flight=100&redeliver_after=1m")
	for i := range 100 {
		msg := messageOf(strconv.Itoa(i))
		if i == 50 {
			msg.Payload = append(msg.Payload, make([]byte, 3000)...)
		}
		require.NoError(t, source.Publisher().Publish(from.topic, msg))
	}
	cfg := bridge.Config{
		From: from.url("partitions=1"), To: to.url(""), Topics: []bridge.Topic{{From: from.topic, To: to.topic}}, MaxMessageSize: 2000,
		Options: engines.Options{Drivers: drivers()},
	}
	b, err := bridge.Open(t.Context(), cfg)
	require.NoError(t, err)
	err = b.Run(t.Context())
	require.ErrorIs(t, err, driver.ErrTooLarge)
	require.ErrorContains(t, err, "dead letters")
	require.Error(t, b.Ready(t.Context()))
	arrived := to.subscribe(destination, "reader")
	before := take(t, arrived, 50)
	before.assertExact(t)
	silence(t, arrived, 100*time.Millisecond)
	cfg.MaxMessageSize = 0
	runBridge(t, cfg)
	rest := take(t, arrived, 50)
	rest.assertExact(t)
}

// TestBridge_HoldsAtMostMaxInFlight: and waits for a destination that is away, without losing or failing, and says so.
func TestBridge_HoldsAtMostMaxInFlight(t *testing.T) {
	from, _ := lastingPair(t)
	to := &fixture{T: t, subject: subjects()[1], topic: "to"}
	to.base = to.subject.base(t)
	source := from.open("partitions=1")
	from.publish(source, 0, 500, 0)
	b, stop := runBridge(t, bridge.Config{
		From: from.url(""), To: to.url(""), Topics: []bridge.Topic{{From: from.topic, To: to.topic}}, MaxInFlight: 100,
	})
	require.Eventually(t, func() bool { return b.Stats().InHand == 100 }, patience, time.Millisecond)
	never := time.Now().Add(300 * time.Millisecond) // real time is the subject
	for time.Now().Before(never) {
		require.LessOrEqual(t, b.Stats().InHand, int64(100))
	}
	require.Zero(t, b.Stats().Forwarded)
	arrived := to.subscribe(to.open("max_in_flight=100"), "reader")
	take(t, arrived, 500).assertExact(t)
	require.Eventually(t, func() bool { return b.Ready(t.Context()) == nil }, patience, time.Millisecond)
	require.NoError(t, stop())
	assert.Zero(t, b.Stats().InHand)
}

// TestBridge_MessagesWithoutAUUIDAreNotTakenForOneAnother: other programs' messages can have none, and sources no places.
func TestBridge_MessagesWithoutAUUIDAreNotTakenForOneAnother(t *testing.T) {
	_, to := lastingPair(t)
	from := &fixture{T: t, subject: subjects()[0], base: "gochannel:", topic: "from"}
	source, destination := from.open("group=bridge&max_in_flight=64"), to.open("group=reader&max_in_flight=64")
	b, _ := runBridge(t, bridge.Config{Source: source, To: to.url(""), Topics: []bridge.Topic{{From: from.topic, To: to.topic}}})
	require.Eventually(t, func() bool { return b.Ready(t.Context()) == nil }, patience, time.Millisecond)
	const n = 50
	for i := range n {
		require.NoError(t, source.Publisher().Publish(from.topic, message.NewMessage("", []byte(strconv.Itoa(i)))))
	}
	take(t, to.subscribe(destination, "reader"), n).assertExact(t)
}

// TestBridge_DrainsAtItsEnd: what was in hand is delivered and acked, so that the next bridge repeats nothing.
func TestBridge_DrainsAtItsEnd(t *testing.T) {
	from, to := lastingPair(t)
	const n = 5000
	source, destination := from.open("key=k"), to.open("max_in_flight=1000&redeliver_after=1m")
	from.publish(source, 0, n, 20)
	cfg := bridge.Config{
		From: from.url(""), To: to.url("dedupe_window=100ms"), Key: "k", MaxInFlight: 500, LookBack: -1, // nothing else drops duplicates
		Topics: []bridge.Topic{{From: from.topic, To: to.topic}},
	}
	for range 3 {
		b, stop := runBridge(t, cfg)
		require.Eventually(t, func() bool { return b.Stats().Forwarded > 200 }, patience, time.Millisecond)
		require.NoError(t, stop())
		assert.Zero(t, b.Stats().InHand)
	}
	runBridge(t, cfg)
	arrived := to.subscribe(destination, "reader")
	take(t, arrived, n).assertExact(t)
	silence(t, arrived, 200*time.Millisecond)
}

// keyIfKafka has publishers of Kafka put messages with one key into one partition.
func keyIfKafka(f *fixture) string {
	if f.name == "kafka" {
		return "&key=k"
	}
	return ""
}

// slow are the parameters of a reader that may be slow, and reads a topic in its order: what it has in hand does not come again.
func (f *fixture) slow() string {
	if !strings.Contains(f.always, "redeliver_after") {
		return ""
	}
	return "&redeliver_after=1m" + f.key // less than patience: an answer of the server that is lost comes again then
}

// onePartition is for the order of messages without keys.
func onePartition(f *fixture) string {
	if f.name == "kafka" {
		return "&partitions=1"
	}
	return ""
}
