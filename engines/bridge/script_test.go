package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/driver"
)

// source is an engine whose subscriptions give what a test puts in, and show what became of it.
type source struct {
	in       chan *message.Message // of the first subscription; closed with it
	given    []*message.Message    // in the order of give
	letters  []*message.Message    // that were published here
	refusing atomic.Int64          // so many letters fail
	failing  error                 // of Check
	closed   int
	topics   []string // of Subscribe
}

func (s *source) Publisher() message.Publisher                  { return s }
func (s *source) Subscriber(string) (message.Subscriber, error) { return s, nil }
func (s *source) Check(context.Context) error                   { return s.failing }
func (s *source) Close() error                                  { s.closed++; return nil }

func (s *source) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	s.topics = append(s.topics, topic)
	in := s.in
	if len(s.topics) > 1 { // nothing comes from the others
		in = make(chan *message.Message)
	}
	context.AfterFunc(ctx, func() { close(in) })
	return in, nil
}

func (s *source) Publish(topic string, messages ...*message.Message) error {
	if s.refusing.Load() > 0 {
		s.refusing.Add(-1)
		return errors.New("no room for letters")
	}
	for _, m := range messages {
		m.Metadata.Set("published at", topic)
		s.letters = append(s.letters, m)
	}
	return nil
}

// give puts messages into the subscription, named by their payload; what follows a colon is their key.
func (s *source) give(names ...string) {
	for _, name := range names {
		name, key, _ := strings.Cut(name, ":")
		m := message.NewMessage(name, []byte(name))
		m.Metadata.Set("key", key)
		s.given = append(s.given, m)
		s.in <- m
	}
}

// destination is an engine that does what a test says with each Publish call.
type destination struct {
	mu      sync.Mutex
	calls   [][]string // the names of each call's messages, in the order in which the calls began; guarded by mu
	stored  []string   // IDs; guarded by mu
	asked   []int      // of Recent: how many; guarded by mu
	lookErr error      // of the next lookFails calls of Recent; guarded by mu
	// answer is asked for each call, without mu; nil stores everything.
	answer    func(ctx context.Context, call int, names []string) error
	lookFails int
	topics    map[string]bool // that were asked for; guarded by mu
	failing   error           // of Check
	closed    int
}

func (d *destination) Publish(ctx context.Context, topic string, messages []*message.Message) error {
	names, ids := []string(nil), []string(nil)
	for _, m := range messages {
		names, ids = append(names, string(m.Payload)), append(ids, driver.ID(m))
	}
	d.mu.Lock()
	call := len(d.calls)
	d.calls = append(d.calls, names)
	d.topics["Publish "+topic] = true
	d.mu.Unlock()
	var err error
	if d.answer != nil {
		err = d.answer(ctx, call, names)
	}
	for i, err := range outcomes(len(ids), err) {
		if err == nil || errors.Is(err, errConfirmLost) {
			d.mu.Lock()
			d.stored = append(d.stored, ids[i])
			d.mu.Unlock()
		}
	}
	return err
}

// errConfirmLost means that the messages are there, and the bridge does not know it.
var errConfirmLost = errors.New("the connection is lost")

func (d *destination) Declare(_ context.Context, topic, group string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.topics["Declare "+topic+group] = true
	return nil
}

func (d *destination) Recent(_ context.Context, topic string, n int) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked, d.topics["Recent "+topic] = append(d.asked, n), true
	if d.lookFails > 0 {
		d.lookFails--
		return nil, d.lookErr
	}
	return slices.Clone(d.stored[max(0, len(d.stored)-n):]), nil
}

func (d *destination) Consume(context.Context, string, string) (driver.Source, error) {
	return nil, errors.New("nothing comes from here")
}

func (d *destination) Check(context.Context) error { return d.failing }
func (d *destination) Close() error                { d.closed++; return nil }

func (d *destination) seenCalls() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var calls []string
	for _, names := range d.calls {
		calls = append(calls, strings.Join(names, ""))
	}
	return strings.Join(calls, " ")
}

// script is a bridge between a source and a destination that a test directs, in a bubble of synctest.
type script struct {
	*Bridge
	t    *testing.T
	from *source
	to   *destination
	end  context.CancelFunc
	// asSource and asDestination are what the engines were opened with.
	asSource, asDestination driver.Settings
	ran                     chan error // what Run returned
}

// scripted runs a test with a bridge that has read what the destination has. change is told the Config before.
func scripted(t *testing.T, change func(*script, *Config), test func(*script)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		x := &script{t: t, from: &source{in: make(chan *message.Message, 100)}, to: &destination{topics: map[string]bool{}}, ran: make(chan error, 1)}
		cfg := Config{
			From: "from://here", To: "to://here", Topics: []Topic{{From: "orders"}}, Logger: watermill.NopLogger{},
			Options: engines.Options{Drivers: []engines.Driver{
				func() driver.Spec {
					return driver.Spec{Name: "from", Schemes: []string{"from"}, OpenPubSub: func(_ context.Context, c *driver.Config) (driver.PubSub, error) {
						x.asSource = c.Settings
						return x.from, nil
					}}
				},
				func() driver.Spec {
					return driver.Spec{Name: "to", Schemes: []string{"to"}, OpenBroker: func(_ context.Context, c *driver.Config) (driver.Broker, error) {
						x.asDestination = c.Settings
						return x.to, nil
					}}
				},
			}},
		}
		if change != nil {
			change(x, &cfg)
		}
		var err error
		x.Bridge, err = Open(t.Context(), cfg)
		require.NoError(t, err)
		var ctx context.Context
		ctx, x.end = context.WithCancel(t.Context())
		defer x.end()
		go func() { x.ran <- x.Run(ctx) }() // ends with ctx
		synctest.Wait()
		test(x)
		x.end()
		synctest.Wait()
	})
}

// requireAnswers fails unless the given messages are acked (+), nacked (-) or neither (.), once all goroutines wait.
func (x *script) requireAnswers(want string) {
	x.t.Helper()
	synctest.Wait()
	require.Equal(x.t, want, answers(x.from.given))
}

// hold returns an answer that lets each call wait until the test releases it, with what it is to return.
func hold() (answer func(context.Context, int, []string) error, release func(err error)) {
	wait := make(chan error)
	return func(ctx context.Context, _ int, _ []string) error {
			select {
			case err := <-wait:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}, func(err error) {
			wait <- err
			synctest.Wait()
		}
}

// each is the error of a call whose messages are refused (r), fail (f) or are stored (s).
func each(outcomes string) error {
	var errs []error
	for _, o := range outcomes {
		switch o {
		case 'r':
			errs = append(errs, refused())
		case 'f':
			errs = append(errs, errors.New("not now"))
		default:
			errs = append(errs, nil)
		}
	}
	return driver.NewPublishError(errs)
}

func refused() error {
	return &driver.RefusedError{Engine: "to", Topic: "orders", Err: fmt.Errorf("%w: no such colour", errors.ErrUnsupported)}
}
