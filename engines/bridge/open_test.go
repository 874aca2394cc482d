package bridge

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// Ready says what is not well, and of which engine.
func TestReady_SaysWhatIsNotWell(t *testing.T) {
	scripted(t, nil, func(x *script) {
		require.NoError(t, x.Ready(t.Context()))
		x.from.failing = errors.New("away")
		require.ErrorContains(t, x.Ready(t.Context()), "source: away")
		x.from.failing, x.to.failing = nil, errors.New("down")
		require.ErrorContains(t, x.Ready(t.Context()), "destination: ")
		x.to.failing = nil
		release := holdFirst(x)
		time.Sleep(stallAfter - time.Millisecond)
		require.NoError(t, x.Ready(t.Context()))
		time.Sleep(2 * time.Millisecond)
		require.ErrorIs(t, x.Ready(t.Context()), errStalled)
		release(nil)
		require.NoError(t, x.Ready(t.Context()))
		time.Sleep(time.Minute)
		require.NoError(t, x.Ready(t.Context()), "what has answered is not late")
	})
	b := &Bridge{starting: true}
	require.ErrorContains(t, b.Ready(t.Context()), "starting")
}

// Hooks get the figures of what has happened.
func TestHooks_GetTheFigures(t *testing.T) {
	var forwards, retries []any
	scripted(t, func(x *script, c *Config) {
		c.Topics, c.LookBack = []Topic{{From: "orders", To: "sold"}}, -1
		c.Hooks.OnForward = func(topic Topic, messages, bytes int, took time.Duration) {
			forwards = append(forwards, topic, messages, bytes, took)
		}
		c.Hooks.OnRetry = func(topic Topic, messages int, err error) { retries = append(retries, topic, messages, err.Error()) }
		x.to.answer = func(_ context.Context, call int, _ []string) error {
			time.Sleep(time.Second)
			if call == 1 {
				return errors.New("not now")
			}
			return nil
		}
	}, func(x *script) {
		x.from.give("a")
		synctest.Wait()
		x.from.give("b", "cc")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{"orders"}, x.from.topics)
		require.Equal(t, map[string]bool{"Declare sold": true, "Publish sold": true}, x.to.topics)
	})
	topic := Topic{"orders", "sold"}
	require.Equal(t, []any{topic, 1, 5, time.Second, topic, 2, 12, 2050 * time.Millisecond}, forwards)
	require.Equal(t, []any{topic, 2, "not now"}, retries)
}

// Engines that the bridge opens get what it needs; a URL's own parameters count.
func TestOpen_Defaults(t *testing.T) {
	for _, key := range []string{"", "key"} {
		scripted(t, func(_ *script, c *Config) {
			c.Key, c.MaxInFlight, c.DrainTimeout, c.Topics = key, 7, 11*time.Second, []Topic{{From: "a"}, {From: "b", To: "c"}}
		}, func(x *script) {
			from, to := x.asSource, x.asDestination
			require.Equal(t, []any{"bridge", 1, 7, 11 * time.Second, ""}, []any{from.Group, from.Members, from.MaxInFlight, from.CloseTimeout, from.Key})
			require.Equal(t, []any{key, "", 1}, []any{to.Key, to.Group, to.MaxInFlight})
			require.Equal(t, key != "", to.Members == 1)
			require.Greater(t, to.PublishTimeout, 50*365*24*time.Hour)
			require.ElementsMatch(t, []string{"a", "b"}, x.from.topics)
			require.Equal(t, map[string]bool{"Declare a": true, "Declare c": true, "Recent a": true, "Recent c": true}, x.to.topics)
			require.Equal(t, []int{28, 28}, x.to.asked)
		})
	}
	scripted(t, func(_ *script, c *Config) {
		c.From, c.To = "from://here?group=own&max_in_flight=3&close_timeout=1s", "to://here?publish_timeout=1m"
	}, func(x *script) {
		require.Equal(t, []any{"own", 3, time.Second}, []any{x.asSource.Group, x.asSource.MaxInFlight, x.asSource.CloseTimeout})
		require.Equal(t, time.Minute, x.asDestination.PublishTimeout)
	})
	engine := &engines.Engine{}
	for says, change := range map[string]func(*Config){
		"two engines": func(c *Config) { c.Source = engine }, "From or Source": func(c *Config) { c.From = "" },
		"no Topics": func(c *Config) { c.Topics = nil }, "a topic is empty": func(c *Config) { c.Topics = []Topic{{To: "t"}} },
		"must not be negative": func(c *Config) { c.Batch = -1 }, "DeadLetterTopic": func(c *Config) { c.DeadLetter = &source{} },
		"itself": func(c *Config) { c.From, c.To, c.Source, c.Destination = "", "", engine, engine },
	} {
		cfg := Config{From: "from://h", To: "to://h", Topics: []Topic{{From: "t"}}}
		change(&cfg)
		_, err := Open(t.Context(), cfg)
		require.ErrorContains(t, err, says)
	}
	require.Equal(t, "nats://a,b/x", place("nats://user:p@ss@a,b/x/?group=g"))
}

// What is opened is closed: once, and also where the other engine cannot be opened; what the application gave stays open.
func TestClose_EnginesOfItsOwn(t *testing.T) {
	from, to := &source{in: make(chan *message.Message)}, &destination{topics: map[string]bool{}}
	options := engines.Options{Drivers: []engines.Driver{
		func() driver.Spec {
			return driver.Spec{Name: "from", Schemes: []string{"from"}, OpenPubSub: func(context.Context, *driver.Config) (driver.PubSub, error) { return from, nil }}
		},
		func() driver.Spec {
			return driver.Spec{Name: "to", Schemes: []string{"to"}, OpenBroker: func(context.Context, *driver.Config) (driver.Broker, error) { return to, nil }}
		},
	}}
	cfg := Config{From: "from://h", To: "none://h", Topics: []Topic{{From: "t"}}, Options: options}
	_, err := Open(t.Context(), cfg)
	require.ErrorIs(t, err, engines.ErrUnknownScheme)
	require.ErrorContains(t, err, "bridge: destination: ")
	require.Equal(t, 1, from.closed)
	cfg.From = "nothing://h"
	_, err = Open(t.Context(), cfg)
	require.ErrorContains(t, err, "bridge: source: ")
	source, err := engines.OpenWith(t.Context(), "from://h", options)
	require.NoError(t, err)
	destination, err := engines.OpenWith(t.Context(), "to://h", options)
	require.NoError(t, err)
	letters := &gone{}
	b, err := Open(t.Context(), Config{Source: source, Destination: destination, Topics: []Topic{{From: "t", To: "u"}}, DeadLetter: letters, DeadLetterTopic: "dead"})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, b.Run(ctx))
	require.NoError(t, b.Close())
	require.Equal(t, []int{1, 0}, []int{from.closed, to.closed})
	require.Same(t, letters, b.cfg.DeadLetter)

	for _, own := range []bool{true, false} { // the topic of dead letters is made where they go to
		to.topics = map[string]bool{}
		cfg := Config{Source: destination, Destination: source, Topics: []Topic{{From: "t"}}, DeadLetterTopic: "dead"}
		if own {
			cfg.DeadLetter = letters
		}
		b, err := Open(t.Context(), cfg)
		require.NoError(t, err)
		require.NoError(t, b.declareDeadLetters(t.Context()))
		require.Equal(t, !own, to.topics["Declare dead"])
		ended := 0
		b.stop = func() { ended++ }
		b.end(errStalled)
		b.end(errBehind)
		require.Equal(t, 2, ended)
		require.ErrorIs(t, b.fatal, errStalled, "the first reason counts")
	}
}

// A PublishError that does not fit its call is of all its messages.
func TestOutcomes(t *testing.T) {
	failed := errors.New("not now")
	one := driver.NewPublishError([]error{nil, failed})
	require.Equal(t, []error{nil, failed}, outcomes(2, one))
	require.Equal(t, []error{one, one, one}, outcomes(3, one))
	require.Equal(t, []error{failed, failed}, outcomes(2, failed))
}

// gone is a Publisher that is not used.
type gone struct{ message.Publisher }
