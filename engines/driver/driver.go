// Package driver is what the driver of an engine is written against. Applications need only package engines.
package driver

import (
	"context"
	"net/url"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/store"
)

// Spec describes an engine and opens it. Exactly one of OpenBroker and OpenPubSub is set.
type Spec struct {
	// Name is the engine's name in errors and documents.
	Name string
	// Schemes are the URL schemes that it opens, in lower case.
	Schemes []string
	// Parameters are the URL parameters of this engine alone, beside the common ones of Settings.
	Parameters []Parameter
	// Cannot has the common parameters that the engine has no equivalent for, as "name" or "name=value", each with the
	// reason. One that a URL sets is an error of Open.
	Cannot map[string]string
	// KeyNeedsOneMember tells that the order of keys holds only while a group has one member, so that key needs
	// members=1.
	KeyNeedsOneMember bool
	// NoHost tells that a URL without a host is valid.
	NoHost bool
	// Cause is the cause of an error of the engine's own client, or nil. Those of the network are found without it.
	Cause func(err error) *Cause
	// OpenBroker opens an engine whose subscriptions are run by package engines.
	OpenBroker func(ctx context.Context, cfg *Config) (Broker, error)
	// OpenPubSub opens an engine that has everything of its own.
	OpenPubSub func(ctx context.Context, cfg *Config) (PubSub, error)
}

// Parameter is a URL parameter of one engine.
type Parameter struct {
	// Name is the parameter. One that ends with a dot stands for all that begin so.
	Name string
	// Help is one line for the documents.
	Help string
}

// Config is what a driver opens its engine with.
type Config struct {
	Settings
	// URL is what was given to Open, with the first of its hosts.
	URL *url.URL
	// Hosts are the hosts of the URL, which has commas between them.
	Hosts []string
	// Params are the values of Spec.Parameters.
	Params Params
	// Logger takes what no caller is told of. It is never nil.
	Logger watermill.LoggerAdapter
	// OpenOutbox opens the outbox in a directory, with a function that closes it. It is nil where the application
	// linked none.
	OpenOutbox func(dir string) (store.Outbox, func() error, error)
}

// Login returns the URL's user, and the password that password_file or password_env has, or else the URL.
func (c *Config) Login() (user, password string) {
	password, _ = c.URL.User.Password()
	return c.URL.User.Username(), c.Params.Secret("password", password)
}

// Broker is an engine that stores messages on a server. Its methods are safe for concurrent use.
type Broker interface {
	// Publish stores the messages, in order, and returns nil when the engine has confirmed all of them. Otherwise it
	// may have stored some, and an error that is of single messages is a *PublishError. A message with an ID is stored
	// once however often it is published, as far as the engine can tell.
	Publish(ctx context.Context, topic string, messages []*message.Message) error
	// Declare makes a topic, and a group of it where group is not empty: what is published from then on waits for the
	// group.
	Declare(ctx context.Context, topic, group string) error
	// Consume begins a subscription. An empty group means all that is published from the return of Consume on.
	Consume(ctx context.Context, topic, group string) (Source, error)
	// Check returns nil if the engine answers.
	Check(ctx context.Context) error
	// Close ends all connections. Sources are closed before.
	Close() error
}

// LookBack is a Broker that can read what a topic got last. A bridge asks it after a restart.
type LookBack interface {
	// Recent returns the IDs of the last n messages of a topic at least, of those that have one.
	Recent(ctx context.Context, topic string, n int) ([]string, error)
}

// Source is one subscription at a Broker. One goroutine calls Fetch, another one the rest; Close is the last call.
type Source interface {
	// Fetch waits until there is a message, and returns up to maximum of them in their order. An error is logged, and
	// Fetch called again after a pause, unless ctx is done.
	Fetch(ctx context.Context, maximum int) ([]Delivery, error)
	// Settle tells the engine that messages were handled, in any order. An error means that they can come again.
	Settle(ctx context.Context, deliveries []Delivery) error
	// Extend tells the engine that messages are still in hand. It is called each third of Settings.RedeliverAfter.
	Extend(ctx context.Context, deliveries []Delivery) error
	// Return gives messages back that were not handled, for other members of the group. It is called only before Close.
	Return(ctx context.Context, deliveries []Delivery) error
	Close() error
}

// Delivery is a message that a Source has fetched.
type Delivery struct {
	// Message is given to handlers as copies.
	Message *message.Message
	// ID names the message in its engine, the same at each delivery and after each restart. Empty where the engine has
	// none.
	ID string
	// Token is the driver's.
	Token any
}

// PubSub is an engine that has its own publisher and subscriptions.
type PubSub interface {
	Publisher() message.Publisher
	// Subscriber returns the subscriber of a group; the same group gets the same subscriber.
	Subscriber(group string) (message.Subscriber, error)
	Check(ctx context.Context) error
	Close() error
}
