package tests

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// tryOpen opens the engine where an error is expected.
func (f *fixture) tryOpen(parameters string) (*engines.Engine, error) {
	e, err := engines.Open(f.Context(), f.url(parameters), drivers()...)
	if err == nil {
		f.Cleanup(func() { _ = e.Close() })
	}
	return e, err
}

func assertUnsupported(t *testing.T, err error, engine, parameter string) {
	t.Helper()
	var unsupported *driver.UnsupportedError
	if assert.ErrorAs(t, err, &unsupported) {
		assert.Equal(t, engine, unsupported.Engine)
		assert.Equal(t, parameter, unsupported.Parameter)
		assert.NotEmpty(t, unsupported.Why)
	}
}

func TestOpen_RefusesWhatItDoesNotKnow(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		for _, parameters := range []string{"colour=red", "max_in_flights=3"} {
			_, err := f.tryOpen(parameters)
			require.ErrorIs(t, err, driver.ErrUnknownParameter, parameters)
			assert.ErrorContains(t, err, f.name)
		}
		for _, parameters := range []string{
			"max_in_flight=0", "max_in_flight=x", "nack_delay=5", "nack_delay=-1s", "attempts=3", "dead_letter=x", "confirm=perhaps", "group=",
			"nack_delay=2s&nack_delay_max=1s",
		} {
			_, err := f.tryOpen(parameters)
			var parameter *driver.ParameterError
			assert.ErrorAs(t, err, &parameter, parameters)
		}
	})
}

func TestOpen_RefusesAParameterThatIsGivenTwice(t *testing.T) {
	_, err := engines.Open(t.Context(), "gochannel:?group=a&group=b")
	assert.ErrorContains(t, err, "more than once")
}

// TestOpen_RefusesWhatTheEngineCannotDo is the table of docs/engines.md: of each common parameter that an engine does not have,
// Open says so.
func TestOpen_RefusesWhatTheEngineCannotDo(t *testing.T) {
	cannot := map[string][]string{
		"gochannel":   {"start=all", "members=1", "batch=10", "confirm=handled", "confirm=enqueued", "redeliver_after=3s"},
		"buffstreams": {"start=new", "members=1", "batch=10", "redeliver_after=3s"},
		"nats":        {"confirm=handled", "confirm=enqueued"},
		"kafka":       {"confirm=handled", "confirm=enqueued", "members=1"},
		"redis":       {"confirm=handled", "confirm=enqueued"},
		"amqp":        {"confirm=handled", "confirm=enqueued", "start=new", "redeliver_after=3s"},
		"postgres":    {"confirm=handled", "confirm=enqueued", "members=1", "redeliver_after=3s"},
	}
	eachSubject(t, func(t *testing.T, f *fixture) {
		require.NotEmpty(t, cannot[f.name])
		for _, parameter := range cannot[f.name] {
			_, err := f.tryOpen(parameter)
			var unsupported *driver.UnsupportedError
			if assert.ErrorAs(t, err, &unsupported, parameter) {
				assert.Equal(t, f.name, unsupported.Engine)
			}
		}
		if f.key != "" {
			_, err := engines.Open(t.Context(), f.base+"?key=k", drivers()...)
			assertUnsupported(t, err, f.name, "key")
		}
	})
}

func TestOpen_NamesTheSchemesItHas(t *testing.T) {
	_, err := engines.Open(t.Context(), "nats://127.0.0.1:1")
	require.ErrorIs(t, err, engines.ErrUnknownScheme)
	assert.ErrorContains(t, err, "gochannel")
	assert.ErrorContains(t, err, "Driver")
	for _, url := range []string{"", "127.0.0.1:5031", "host.example:5031", "nats", "/path"} {
		_, err := engines.Open(t.Context(), url, drivers()...)
		require.ErrorIs(t, err, engines.ErrUnknownScheme, url)
		assert.ErrorContains(t, err, "tcp://", url)
	}
}

func TestOpen_NeverShowsThePassword(t *testing.T) {
	for _, url := range []string{
		"nats://user:geheim@127.0.0.1:1", "kafka://user:geheim@127.0.0.1:1?sasl=plain", "nats://user:geheim@127.0.0.1:99999",
		"nats://user:geheim@%zz", "xyz://user:geheim@h", "nats://user:geheim@h?colour=1", "tcp://user:geheim@h:1",
	} {
		_, err := engines.Open(t.Context(), url, drivers()...)
		require.Error(t, err, url)
		assert.NotContains(t, err.Error(), "geheim")
	}
}

func TestOpen_ReadsSecretsFromFilesAndTheEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(file, []byte("from file\nsecond line"), 0o600))
	t.Setenv("ENGINES_TEST_SECRET", "from environment")
	p := driver.NewParams("x", map[string][]string{"password_file": {file}})
	assert.Equal(t, "from file", p.Secret("password", "from url"))
	p = driver.NewParams("x", map[string][]string{"password_env": {"ENGINES_TEST_SECRET"}})
	assert.Equal(t, "from environment", p.Secret("password", "from url"))
	p = driver.NewParams("x", map[string][]string{})
	assert.Equal(t, "from url", p.Secret("password", "from url"))
	require.NoError(t, p.Err())
	for _, values := range []map[string][]string{
		{"password_file": {file + "x"}}, {"password_env": {"ENGINES_TEST_NOT_SET"}}, {"password_file": {file}, "password_env": {"HOME"}},
	} {
		p = driver.NewParams("x", values)
		p.Secret("password", "")
		assert.Error(t, p.Err(), values)
	}
}

func TestOpen_MissingTopicIsAnErrorWithCreateFalse(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		if !f.lasting {
			_, err := f.tryOpen("create=false")
			require.ErrorIs(t, err, driver.ErrUnknownParameter)
			return
		}
		e := f.open("create=false")
		sub, err := e.Group("g")
		require.NoError(t, err)
		_, err = sub.Subscribe(t.Context(), f.topic)
		require.ErrorIs(t, err, driver.ErrNoTopic)
		if f.name != "amqp" { // which cannot be asked
			_, _, err = e.Recent(t.Context(), f.topic, 1)
			require.ErrorIs(t, err, driver.ErrNoTopic) // as a bridge asks before it begins
		}
		f.topic = "other-" + f.topic
		err = e.Publisher().Publish(f.topic, messageOf("x"))
		require.ErrorIs(t, err, driver.ErrNoTopic)
	})
}

func TestEngine_AfterCloseItSaysSo(t *testing.T) {
	eachSubject(t, func(t *testing.T, f *fixture) {
		e := f.open("")
		require.NoError(t, e.Check(context.Background()))
		sub, err := e.Group("g")
		require.NoError(t, err)
		require.NoError(t, e.Close())
		require.NoError(t, e.Close())
		require.Error(t, e.Publisher().Publish(f.topic, messageOf("x")))
		_, err = sub.Subscribe(t.Context(), f.topic)
		require.Error(t, err)
		_, err = e.Group("other")
		require.ErrorIs(t, err, engines.ErrClosed)
	})
}
