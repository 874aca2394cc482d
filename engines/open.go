package engines

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/engines/driver"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// Driver is the function Driver of a driver's package, such as nats.Driver.
type Driver = func() driver.Spec

// Options are what a URL cannot say. The zero value is valid.
type Options struct {
	// Drivers are the engines that can be opened, beside this library and GoChannel.
	Drivers []Driver
	// Logger takes what no caller is told of. Nil means watermill.NopLogger.
	Logger watermill.LoggerAdapter
	// OpenOutbox opens the outbox that a URL of this library names: outboxes.Open of engines/outboxes, or nil for none.
	OpenOutbox func(dir string) (store.Outbox, func() error, error)
	// Defaults are common parameters for engines that can do them, where the URL has no others.
	Defaults map[string]string
}

// Open opens the engine of a URL with the default options. ctx bounds the opening alone.
func Open(ctx context.Context, rawURL string, drivers ...Driver) (*Engine, error) {
	return OpenWith(ctx, rawURL, Options{Drivers: drivers})
}

// OpenWith opens the engine of a URL. A parameter that the engine does not know, and one that it cannot do, are errors:
// *driver.ParameterError and *driver.UnsupportedError. Errors do not show passwords.
func OpenWith(ctx context.Context, rawURL string, options Options) (*Engine, error) {
	u, hosts, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	specs := []driver.Spec{streamsDriver(), goChannelDriver()}
	for _, d := range options.Drivers {
		specs = append(specs, d())
	}
	spec, err := find(specs, u.Scheme)
	if err != nil {
		return nil, err
	}
	cfg, err := configure(spec, u, options.Defaults)
	if err != nil {
		return nil, err
	}
	cfg.Hosts = hosts
	cfg.OpenOutbox, cfg.Logger = options.OpenOutbox, options.Logger
	if cfg.Logger == nil {
		cfg.Logger = watermill.NopLogger{}
	}
	if spec.OpenPubSub != nil {
		ps, err := spec.OpenPubSub(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return &Engine{name: spec.Name, pubsub: ps}, nil
	}
	if u.Host == "" && !spec.NoHost {
		return nil, fmt.Errorf("engines: %s: the URL has no host: it is %s://host:port", spec.Name, u.Scheme)
	}
	broker, err := spec.OpenBroker(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("engines: open %s: %w", place(u, hosts), explainer{spec}.explainOpening(err))
	}
	return &Engine{name: spec.Name, pubsub: newBrokered(spec, broker, cfg)}, nil
}

// place is what an error shows of a URL: not its user, which can be a token, nor its parameters.
func place(u *url.URL, hosts []string) string {
	return fmt.Sprintf("%s://%.300s%.200s", u.Scheme, strings.Join(hosts, ","), u.EscapedPath())
}

var errNoScheme = fmt.Errorf("%w: the URL has none: it begins with gochannel:, tcp://, nats:// or the like", ErrUnknownScheme)

// parse reads a URL whose hosts can be several with commas between, which package net/url does not know.
func parse(raw string) (u *url.URL, hosts []string, err error) {
	first := raw
	scheme, rest, ok := strings.Cut(raw, "://")
	if before, _, colon := strings.Cut(raw, ":"); !ok && (!colon || strings.Contains(before, ".")) { // a host, perhaps with its port
		return nil, nil, errNoScheme
	}
	if ok {
		end := len(rest)
		if i := strings.IndexAny(rest, "/?#"); i >= 0 {
			end = i
		}
		authority, behind := rest[:end], rest[end:]
		user := ""
		if i := strings.LastIndexByte(authority, '@'); i >= 0 {
			user, authority = authority[:i+1], authority[i+1:]
		}
		hosts = strings.Split(authority, ",")
		if len(hosts) > 1 && slices.Contains(hosts, "") {
			return nil, nil, errors.New("engines: the URL cannot be read: one of its hosts is empty")
		}
		first = scheme + "://" + user + hosts[0] + behind
	}
	if u, err = url.Parse(first); err != nil { // which has the URL, and so a password, in its text
		var parsing *url.Error
		if errors.As(err, &parsing) {
			err = parsing.Err
		}
		return nil, nil, fmt.Errorf("engines: the URL cannot be read: %w", err)
	}
	return u, hosts, nil
}

func find(specs []driver.Spec, scheme string) (driver.Spec, error) {
	var known []string
	for _, spec := range specs {
		if slices.Contains(spec.Schemes, scheme) {
			return spec, nil
		}
		known = append(known, spec.Schemes...)
	}
	return driver.Spec{}, fmt.Errorf("%w %q: there are %s; pass the engine's Driver to Open", ErrUnknownScheme, scheme, strings.Join(known, ", "))
}

// configure reads the URL's parameters, and refuses those that the engine does not know or cannot do.
func configure(spec driver.Spec, u *url.URL, defaults map[string]string) (*driver.Config, error) {
	values, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("engines: %s: the parameters cannot be read: %w", spec.Name, err)
	}
	for name, value := range defaults {
		if spec.Cannot[name] == "" && spec.Cannot[name+"="+value] == "" && !values.Has(name) {
			values.Set(name, value)
		}
	}
	params := driver.NewParams(spec.Name, values)
	for _, name := range params.Names("") {
		if !known(driver.Common(), name) && !known(spec.Parameters, name) {
			return nil, &driver.ParameterError{Engine: spec.Name, Parameter: name, Err: driver.ErrUnknownParameter}
		}
		for _, what := range []string{name, name + "=" + values.Get(name)} {
			if why, cannot := spec.Cannot[what]; cannot {
				return nil, &driver.UnsupportedError{Engine: spec.Name, Parameter: what, Why: why}
			}
		}
	}
	cfg := &driver.Config{Settings: driver.ParseSettings(&params), URL: u, Params: params}
	if spec.KeyNeedsOneMember && cfg.Key != "" && cfg.Members != 1 {
		return nil, &driver.UnsupportedError{
			Engine: spec.Name, Parameter: "key",
			Why: "it keeps the order of keys only while each group has one member; add members=1 where that is so",
		}
	}
	return cfg, params.Err()
}

func known(parameters []driver.Parameter, name string) bool {
	return slices.ContainsFunc(parameters, func(p driver.Parameter) bool {
		return p.Name == name || strings.HasSuffix(p.Name, ".") && strings.HasPrefix(name, p.Name) && name != p.Name
	})
}

// Engine is an engine that was opened. It is safe for concurrent use.
type Engine struct {
	name   string
	pubsub driver.PubSub
}

// Name is the engine's name, such as nats.
func (e *Engine) Name() string { return e.name }

// Publisher is the engine's publisher. Close of the Engine closes it.
func (e *Engine) Publisher() message.Publisher { return e.pubsub.Publisher() }

// Subscriber returns the subscriber of the URL's group.
func (e *Engine) Subscriber() (message.Subscriber, error) { return e.pubsub.Subscriber("") }

// Group returns the subscriber of another group, such as that of one event handler. The same group has the same one.
func (e *Engine) Group(name string) (message.Subscriber, error) { return e.pubsub.Subscriber(name) }

// Check returns nil if the engine answers: what a health check wants to know.
func (e *Engine) Check(ctx context.Context) error { return e.pubsub.Check(ctx) }

// Declare makes a topic, or finds it, so that what is missing shows before the first message: with create=false the error
// of a topic that is not there matches driver.ErrNoTopic. Engines that keep no topics return nil.
func (e *Engine) Declare(ctx context.Context, topic string) error {
	b, ok := e.pubsub.(*brokered)
	if !ok {
		return nil
	}
	return b.explain(b.broker.Declare(ctx, topic, ""))
}

// Recent returns the IDs of the last n messages of a topic, of those that were published with one. known is false if
// the engine cannot look back.
func (e *Engine) Recent(ctx context.Context, topic string, n int) (ids []string, known bool, err error) {
	b, ok := e.pubsub.(*brokered)
	if !ok {
		return nil, false, nil
	}
	back, ok := b.broker.(driver.LookBack)
	if !ok {
		return nil, false, nil
	}
	ids, err = back.Recent(ctx, topic, n)
	return ids, true, b.explain(err)
}

// Close closes the publisher and the subscribers, waits for handlers up to close_timeout, and ends all connections.
func (e *Engine) Close() error { return e.pubsub.Close() }
