package tests

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/jackc/pgx/v5"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/bridge"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// refuser makes a destination whose server refuses payloads of a size, and takes smaller ones.
type refuser struct {
	name string
	size int
	make func(t *testing.T) *fixture
}

func refusers() []refuser {
	topic := func() string { return "to-" + watermill.NewShortUUID() }
	return []refuser{
		{"nats", 3000, func(t *testing.T) *fixture {
			f := &fixture{T: t, subject: subjects()[2], base: "nats://" + natsServer(t), topic: topic()}
			nc, err := natsgo.Connect(f.base)
			require.NoError(t, err)
			defer nc.Close()
			js, err := jetstream.New(nc)
			require.NoError(t, err)
			_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{Name: f.topic, Subjects: []string{f.topic}, MaxMsgSize: 2000, AllowAtomicPublish: true})
			require.NoError(t, err)
			return f
		}},
		{"kafka", 12000, func(t *testing.T) *fixture {
			f := &fixture{T: t, subject: subjects()[3], base: "kafka://" + kafkaServer(t), topic: topic()}
			client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(kafkaServer(t), ",")...))
			require.NoError(t, err)
			defer client.Close()
			_, err = kadm.NewClient(client).CreateTopic(t.Context(), 4, 1, map[string]*string{"max.message.bytes": kadm.StringPtr("8000")}, f.topic)
			require.NoError(t, err)
			return f
		}},
		{"amqp", 3000, func(t *testing.T) *fixture {
			p, err := newRabbitMQ("", "max_message_size = 2000\n")
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(p.stop)
			return &fixture{T: t, subject: subjectAt("amqp", ""), base: "amqp://" + p.address() + "/", topic: topic()}
		}},
		{"postgres", 3000, func(t *testing.T) *fixture {
			f := &fixture{T: t, subject: subjects()[6], base: postgresServer(t), topic: topic()}
			sub, err := f.open("").Group("reader")
			require.NoError(t, err)
			require.NoError(t, sub.(message.SubscribeInitializer).SubscribeInitialize(f.topic))
			conn, err := pgx.Connect(t.Context(), f.base)
			require.NoError(t, err)
			defer func() { _ = conn.Close(t.Context()) }()
			_, err = conn.Exec(t.Context(), fmt.Sprintf(`ALTER TABLE "watermill_%s" ADD CHECK (octet_length(payload) < 2000)`, f.topic))
			require.NoError(t, err)
			return f
		}},
		{"redis", 1 << 21, func(t *testing.T) *fixture {
			p, err := newRedis("", "--proto-max-bulk-len", "1mb")
			if err != nil {
				t.Skip(err)
			}
			t.Cleanup(p.stop)
			return &fixture{T: t, subject: subjectAt("redis", ""), base: "redis://" + p.address() + "/0", topic: topic()}
		}},
	}
}

// TestRefusal_OfOneInAHundred: what the destination's own server refuses becomes dead letters with the reason, and the rest
// arrives, each once and in order. Without a place for dead letters the bridge ends with the reason, and the message stays.
func TestRefusal_OfOneInAHundred(t *testing.T) {
	for _, r := range refusers() {
		if only := only(); only != "" && only != r.name {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			to := r.make(t)
			from, nats := lastingPair(t)
			if r.name == "kafka" {
				from = nats
			}
			const n = 1000
			source := from.open("max_message_size=4000000&key=k")
			reader := to.open("group=reader&max_in_flight=100")
			sub, err := reader.Group("reader")
			require.NoError(t, err)
			require.NoError(t, sub.(message.SubscribeInitializer).SubscribeInitialize(to.topic))
			for i := range n {
				msg := messageOf(strconv.Itoa(i))
				msg.Metadata.Set("k", strconv.Itoa(i%20))
				if i%100 == 50 {
					msg.Payload = append(msg.Payload, make([]byte, r.size)...)
				}
				require.NoError(t, source.Publisher().Publish(from.topic, msg))
			}
			cfg := bridge.Config{
				From: from.url("max_message_size=4000000"), To: to.url("batch=100"), Topics: []bridge.Topic{{From: from.topic, To: to.topic}}, Key: "k",
				Options: engines.Options{Drivers: drivers()}, MaxInFlight: 500, Logger: &lines{t: t},
			}
			b, err := bridge.Open(t.Context(), cfg)
			require.NoError(t, err)
			err = b.Run(t.Context())
			var refused *driver.RefusedError
			require.ErrorAs(t, err, &refused)
			if r.name != "postgres" { // whose constraint can be anything
				require.ErrorIs(t, err, driver.ErrTooLarge)
			}
			t.Log(err)
			cfg.DeadLetterTopic = "dead-" + from.topic
			b, _ = runBridge(t, cfg)
			arrived := to.subscribe(reader, "reader")
			a := take(t, arrived, n-n/100)
			a.drain(arrived, 200*1e6)
			if r.name != "amqp" { // it can have what its server has not confirmed
				a.assertExact(t)
			} else {
				a.assertOrder(t)
			}
			dead := &fixture{T: t, subject: from.subject, topic: "dead-" + from.topic}
			letters := dead.subscribe(source, "reader")
			for range n / 100 {
				letter := receive(t, letters)
				letter.Ack()
				assert.Greater(t, len(letter.Payload), r.size)
				assert.NotEmpty(t, letter.Metadata.Get(middleware.ReasonForPoisonedKey))
			}
			assert.EqualValues(t, n/100, b.Stats().Refused)
		})
	}
}

// TestRefusal_TakesNoOthersOfTheCallWithIt: the error says of each message of a call whether it is stored.
func TestRefusal_TakesNoOthersOfTheCallWithIt(t *testing.T) {
	redis := &fixture{T: t, subject: subjects()[4], topic: "refusal-" + watermill.NewShortUUID()}
	redis.base = redis.subject.base(t)
	e := redis.open("group=g&max_in_flight=10")
	messages := redis.subscribe(e, "g")
	batch := []*message.Message{messageOf("0"), messageOf("1"), messageOf("2"), messageOf("3")}
	batch[1].Metadata.Set("_watermill_message_uuid", "what the format keeps for itself")
	err := e.Publisher().Publish(redis.topic, batch...)
	var each *driver.PublishError
	require.ErrorAs(t, err, &each)
	for i, err := range each.Errs {
		var refused *driver.RefusedError
		assert.Equal(t, i == 1, errors.As(err, &refused), "%v", err)
	}
	for _, payload := range []string{"0", "2", "3"} {
		msg := receive(t, messages)
		assert.Equal(t, payload, string(msg.Payload))
		msg.Ack()
	}
}
