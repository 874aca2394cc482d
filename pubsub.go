package buffstreams

import (
	"errors"
	"net"

	"github.com/ThreeDotsLabs/watermill"

	"github.com/buffstreams/watermill-buffstreams/internal/netio"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// PubSubConfig configures a PubSub. The zero value is valid.
type PubSubConfig struct {
	// Address is listened at for logical topics; empty means a free port of 127.0.0.1.
	Address    string
	Manager    ManagerConfig
	Publisher  PublisherConfig
	Subscriber SubscriberConfig
}

// PubSub is both ends in one process, over a real socket, for an application that had a GoChannel: topics are plain
// names. Unlike with GoChannel, a message to a topic without a subscription is not dropped: Publish waits for the topic
// to exist, up to PublishTimeout.
type PubSub struct {
	*Publisher
	*Subscriber
	address string
}

// NewPubSub listens at the configured address and returns both ends.
func NewPubSub(config PubSubConfig, logger watermill.LoggerAdapter) (*PubSub, error) {
	if config.Publisher.Wire != config.Subscriber.Wire {
		return nil, configError("PubSubConfig.Publisher.Wire", "it must be that of PubSubConfig.Subscriber: they are each other's peers")
	}
	if config.Address == "" {
		config.Address = "127.0.0.1:0"
	}
	if config.Manager.OnFailure == nil && config.Subscriber.OnFailure == nil {
		config.Manager.OnFailure = config.Publisher.OnFailure
	}
	config.Subscriber.Manager, config.Subscriber.ManagerConfig = nil, config.Manager // which Subscriber.Close closes
	config.Subscriber.ListenAddress = config.Address
	sub, err := NewSubscriber(config.Subscriber, logger)
	if err != nil {
		return nil, err
	}
	pub, address, err := newPublisherTo(sub, config, logger)
	if err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	return &PubSub{Publisher: pub, Subscriber: sub, address: address}, nil
}

// newPublisherTo makes the subscriber listen, and returns a publisher to it.
func newPublisherTo(sub *Subscriber, config PubSubConfig, logger watermill.LoggerAdapter) (*Publisher, string, error) {
	target, err := parseAddress(config.Address)
	if err != nil {
		return nil, "", err
	}
	listener, err := sub.listen(destination{target: target})
	if err != nil {
		return nil, "", err
	}
	address := formatAddress(boundAt(target, listener.Addr().String()))
	config.Publisher.Manager, config.Publisher.Resolver = sub.manager, route.To(address)
	pub, err := NewPublisher(config.Publisher, logger)
	return pub, address, err
}

// boundAt is a target that is listened at with the port that it got. With TLS it keeps its host, which the certificate
// names, if that is a name.
func boundAt(t netio.Target, bound string) netio.Target {
	if t.TLS && !isIP(t.Address) {
		host, _, _ := net.SplitHostPort(t.Address)
		_, port, _ := net.SplitHostPort(bound)
		bound = net.JoinHostPort(host, port)
	}
	t.Address = bound
	return t
}

// Address is where it listens: other processes can publish to it.
func (p *PubSub) Address() string { return p.address }

// Close closes the publisher, and the subscriber when its subscriptions have handled what was published, or
// SubscriberConfig.CloseTimeout is over. What remains is reported by an *UndeliveredError. Later and concurrent calls
// wait for the first and return the same.
func (p *PubSub) Close() error {
	return errors.Join(p.Publisher.Close(), p.Subscriber.Close())
}
