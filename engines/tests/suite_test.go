package tests

import (
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines"
)

// subject is an engine under test.
type subject struct {
	name string
	// base returns the URL without parameters. All engines that a test opens with it see the same messages.
	base func(t *testing.T) string
	// always are parameters of each URL.
	always string
	// key are parameters that key needs beside it.
	key string
	// one tells that messages stay in one process: a test can have one Engine only.
	one bool
	// lasting tells that messages wait for groups and outlive processes.
	lasting bool
	// ownSuite tells that Watermill's suite runs elsewhere.
	ownSuite bool
}

func subjects() []*subject {
	return []*subject{
		{name: "gochannel", base: func(*testing.T) string { return "gochannel:" }, one: true},
		{name: "buffstreams", one: true, ownSuite: true, base: func(t *testing.T) string {
			return "unix://" + filepath.Join(shortDir(t), "s")
		}},
		{name: "nats", lasting: true, always: "replicas=3&redeliver_after=5s&publish_timeout=2m", key: "&members=1", base: func(t *testing.T) string {
			return "nats://" + natsServer(t)
		}},
		{name: "kafka", lasting: true, always: "partitions=4&redeliver_after=5s", base: func(t *testing.T) string {
			return "kafka://" + kafkaServer(t)
		}},
		{name: "redis", lasting: true, always: "redeliver_after=5s", key: "&members=1", base: redisServer},
		{name: "amqp", lasting: true, base: amqpServer},
		{name: "postgres", lasting: true, base: postgresServer},
	}
}

// eachSubject runs a test with every engine that ENGINES names, or all.
func eachSubject(t *testing.T, test func(*testing.T, *fixture)) {
	only := only()
	for _, s := range subjects() {
		if only != "" && !strings.Contains(","+only+",", ","+s.name+",") {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			test(t, &fixture{T: t, subject: s, base: s.base(t), topic: "topic-" + watermill.NewShortUUID()})
		})
	}
}

// fixture is what one test has of an engine.
type fixture struct {
	*testing.T
	*subject
	base  string
	topic string
}

// url is the engine's URL with parameters.
func (f *fixture) url(parameters string) string {
	all := strings.Trim(f.always+"&"+parameters, "&")
	values, err := url.ParseQuery(all)
	require.NoError(f, err)
	if values.Has("key") {
		all += f.key
	}
	// The later one of two counts, so that a test can change what is always.
	values, err = url.ParseQuery(all)
	require.NoError(f, err)
	for k, v := range values {
		values[k] = v[len(v)-1:]
	}
	if len(values) == 0 {
		return f.base
	}
	return f.base + "?" + values.Encode()
}

// open opens the engine, and closes it at the end of the test.
func (f *fixture) open(parameters string) *engines.Engine {
	f.Helper()
	return f.openLogged(parameters, nil)
}

// openLogged is open with a log.
func (f *fixture) openLogged(parameters string, log watermill.LoggerAdapter) *engines.Engine {
	f.Helper()
	e, err := engines.OpenWith(f.Context(), f.url(parameters), engines.Options{Drivers: drivers(), Logger: log})
	require.NoError(f, err)
	f.Cleanup(func() { _ = e.Close() })
	return e
}

// subscribe subscribes to the fixture's topic for as long as the test lasts.
func (f *fixture) subscribe(e *engines.Engine, group string) <-chan *message.Message {
	f.Helper()
	sub, err := e.Group(group)
	require.NoError(f, err)
	messages, err := sub.Subscribe(f.Context(), f.topic)
	require.NoError(f, err)
	return messages
}

// publish publishes numbers from to to-1, with a metadata key k where keys are more than none.
func (f *fixture) publish(e *engines.Engine, from, to, keys int) {
	f.Helper()
	for from < to {
		var batch []*message.Message
		for ; from < to && len(batch) < 50; from++ {
			msg := message.NewMessage(watermill.NewUUID(), []byte(strconv.Itoa(from)))
			if keys > 0 {
				msg.Metadata.Set("k", strconv.Itoa(from%keys))
			}
			batch = append(batch, msg)
		}
		require.NoError(f, e.Publisher().Publish(f.topic, batch...))
	}
}
