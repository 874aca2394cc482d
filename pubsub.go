package buffstreams

import (
	"errors"

	"github.com/ThreeDotsLabs/watermill"

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

// PubSub is both ends in one process, over a real socket, for an application that had a GoChannel: topics are plain names.
// Unlike with GoChannel, a message to a topic that nobody has subscribed to yet is not dropped: Publish waits for the
// topic to exist, up to PublishTimeout.
type PubSub struct {
	*Publisher
	*Subscriber
	manager *Manager
	address string
}

// NewPubSub listens at the configured address and returns both ends.
func NewPubSub(config PubSubConfig, logger watermill.LoggerAdapter) (*PubSub, error) {
	if config.Address == "" {
		config.Address = "127.0.0.1:0"
	}
	manager, _, err := managerOf(nil, config.Manager, logger)
	if err != nil {
		return nil, err
	}
	p, err := newPubSub(config, manager, logger)
	if err != nil {
		return nil, errors.Join(err, manager.Close())
	}
	return p, nil
}

func newPubSub(config PubSubConfig, manager *Manager, logger watermill.LoggerAdapter) (*PubSub, error) {
	config.Subscriber.Manager, config.Subscriber.ListenAddress = manager, config.Address
	sub, err := NewSubscriber(config.Subscriber, logger)
	if err != nil {
		return nil, err
	}
	target, err := parseAddress(config.Address)
	if err != nil {
		return nil, err
	}
	listener, err := sub.listen(destination{target: target})
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String()
	if target.Network == "unix" {
		address = "unix://" + address
	}
	config.Publisher.Manager, config.Publisher.Resolver = manager, route.To(address)
	pub, err := NewPublisher(config.Publisher, logger)
	if err != nil {
		return nil, err
	}
	return &PubSub{Publisher: pub, Subscriber: sub, manager: manager, address: address}, nil
}

// Address is where it listens: other processes can publish to it.
func (p *PubSub) Address() string { return p.address }

// Close closes the publisher, the subscriber, and the sockets.
func (p *PubSub) Close() error {
	return errors.Join(p.Publisher.Close(), p.Subscriber.Close(), p.manager.Close())
}
