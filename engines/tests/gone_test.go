package tests

import (
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqpgo "github.com/rabbitmq/amqp091-go"
	redisgo "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// deleters delete a topic, with the groups of it, behind the back of who uses it.
func deleters() map[string]func(*testing.T, *fixture) {
	return map[string]func(*testing.T, *fixture){
		"nats": func(t *testing.T, f *fixture) {
			nc, err := natsgo.Connect(f.base)
			require.NoError(t, err)
			defer nc.Close()
			js, err := jetstream.New(nc)
			require.NoError(t, err)
			require.NoError(t, js.DeleteStream(t.Context(), f.topic))
		},
		"kafka": func(t *testing.T, f *fixture) {
			client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(strings.TrimPrefix(f.base, "kafka://"), ",")...))
			require.NoError(t, err)
			defer client.Close()
			_, err = kadm.NewClient(client).DeleteTopics(t.Context(), f.topic)
			require.NoError(t, err)
		},
		"redis": func(t *testing.T, f *fixture) {
			u, err := url.Parse(f.base)
			require.NoError(t, err)
			client := redisgo.NewClient(&redisgo.Options{Addr: u.Host})
			defer func() { _ = client.Close() }()
			require.NoError(t, client.Del(t.Context(), f.topic).Err())
		},
		"amqp": func(t *testing.T, f *fixture) {
			conn, err := amqpgo.Dial(f.base)
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			ch, err := conn.Channel()
			require.NoError(t, err)
			_, err = ch.QueueDelete(f.topic+"/g", false, false, false)
			require.NoError(t, err)
			require.NoError(t, ch.ExchangeDelete(f.topic, false, false))
		},
		"postgres": func(t *testing.T, f *fixture) {
			conn, err := pgx.Connect(t.Context(), f.base)
			require.NoError(t, err)
			defer func() { _ = conn.Close(t.Context()) }()
			for _, table := range []string{"watermill_" + f.topic, "watermill_offsets_" + f.topic} {
				_, err := conn.Exec(t.Context(), "DROP TABLE "+pgx.Identifier{table}.Sanitize())
				require.NoError(t, err)
			}
		},
	}
}

// TestGone_TopicsAreMadeAgain: a topic that is deleted while a publisher and a subscriber use it is made again, and both go on.
func TestGone_TopicsAreMadeAgain(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		remove := deleters()[f.name]
		if remove == nil {
			t.Skip("it has no topics that can be deleted")
		}
		f.topic = "gone-" + watermill.NewShortUUID()
		log := &lines{t: t}
		e := f.openLogged("group=g&max_in_flight=10&publish_timeout=10s", log)
		messages := f.subscribe(e, "g")
		f.publish(e, 0, 10, 0)
		for range 10 {
			receive(t, messages).Ack()
		}
		remove(t, f)
		require.Eventually(t, func() bool {
			err := e.Publisher().Publish(f.topic, messageOf("after"))
			if err != nil {
				t.Log(err)
			}
			return err == nil
		}, patience, 100*time.Millisecond)
		msg := receive(t, messages)
		require.Equal(t, "after", string(msg.Payload))
		msg.Ack()
		log.assertFew()
	})
}

// TestGone_AKafkaTopicThatOthersMakeAnewIsReadFromItsStart: the group has positions in the old topic, and handlers have messages of it.
// Nothing of the new one is skipped, and acks of the old one move nothing in it.
func TestGone_AKafkaTopicThatOthersMakeAnewIsReadFromItsStart(t *testing.T) {
	const n = 200
	f := &fixture{T: t, subject: subjects()[3], base: "kafka://" + kafkaServer(t), topic: "anew-" + watermill.NewShortUUID()}
	e := f.openLogged("group=g&max_in_flight=20&publish_timeout=10s", &lines{t: t})
	messages := f.subscribe(e, "g")
	f.publish(e, 0, n/2, 0)
	for range n/2 - 10 {
		receive(t, messages).Ack()
	}
	var held []*message.Message
	for range 10 {
		held = append(held, receive(t, messages))
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(strings.TrimPrefix(f.base, "kafka://"), ",")...))
	require.NoError(t, err)
	defer client.Close()
	admin := kadm.NewClient(client)
	_, err = admin.DeleteTopics(t.Context(), f.topic)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := admin.CreateTopic(t.Context(), 4, 1, nil, f.topic)
		return err == nil
	}, patience, 10*time.Millisecond)
	for i := range n {
		record := &kgo.Record{Topic: f.topic, Value: []byte("new " + strconv.Itoa(i))}
		require.NoError(t, client.ProduceSync(t.Context(), record).FirstErr())
	}
	for _, msg := range held {
		msg.Ack()
	}
	got := map[string]bool{}
	for len(got) < n {
		msg := receive(t, messages)
		if strings.HasPrefix(string(msg.Payload), "new ") {
			got[string(msg.Payload)] = true
		}
		msg.Ack()
	}
}
