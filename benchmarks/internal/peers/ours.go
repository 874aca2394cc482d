package peers

import (
	"errors"
	"strings"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
	"github.com/buffstreams/watermill-buffstreams/hooks"
	"github.com/buffstreams/watermill-buffstreams/pool"
	"github.com/buffstreams/watermill-buffstreams/route"
)

// This library at each confirm level. Both ends have a Manager of their own, and meet over loopback TCP.
var (
	Enqueued = ours("buffstreams enqueued", buffstreams.ConfirmEnqueued, "the send window has it; it is sent again until it was handled")
	Received = ours("buffstreams received", buffstreams.ConfirmReceived, "the subscriber's process holds it; it is sent again until it was handled")
	Handled  = ours("buffstreams handled", buffstreams.ConfirmHandled, "its handler has acked it")
)

func ours(name string, confirm buffstreams.Confirm, guarantee string) Peer {
	return Peer{
		Name: name, Guarantee: guarantee,
		Settings: "defaults but for Confirm, MaxInFlight, and any number of connections from one host; loopback TCP, checksums",
		Receive:  receiveOurs,
		Dial: func(s Setup, to Receiver) (Sender, error) {
			return s.dialOurs(confirm, to)
		},
	}
}

// dialOurs publishes to where to listens.
func (s Setup) dialOurs(confirm buffstreams.Confirm, to Receiver) (Sender, error) {
	addresses := strings.Split(to.Address(), ",")
	cfg := buffstreams.PublisherConfig{ManagerConfig: s.manager(), Confirm: confirm, Resolver: route.To(addresses[0])}
	topics := s.topics()
	switch {
	case s.Fixed:
		cfg.Resolver = nil
		for i := range topics {
			topics[i] = "tcp://" + addresses[0] + "/" + topics[i]
		}
	case len(addresses) > 1:
		r := route.Route{Addresses: addresses, Policy: s.Policy}
		if s.Policy == route.Hash {
			r.HashKey = orderKey
		}
		cfg.Resolver = route.Static{"*": r}
	}
	pub, err := buffstreams.NewPublisher(cfg, nil)
	if err != nil {
		return nil, err
	}
	return s.publishing(pub, topics), nil
}

// manager makes room for messages that are larger than the default limit.
func (s Setup) manager() (cfg buffstreams.ManagerConfig) {
	if s.Size >= 1<<20 {
		cfg.Acked.MaxMessageSize = s.Size + 4<<10
	}
	if s.Hooks {
		cfg.Hooks = []hooks.Hook{new(counter)}
	}
	return cfg
}

func receiveOurs(s Setup, tally *measure.Tally) (Receiver, error) {
	var all at
	var addresses []string
	for range max(s.Addresses, 1) {
		one, err := receiveOne(s, tally)
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		addresses, all.ends = append(addresses, one.address), append(all.ends, one.Close)
	}
	all.address = strings.Join(addresses, ",")
	return all, nil
}

func receiveOne(s Setup, tally *measure.Tally) (at, error) {
	cfg := s.manager()
	cfg.Acked.MaxConnectionsPerHost = pool.Unlimited // all publishers of a benchmark are on one
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ManagerConfig: cfg, ListenAddress: loopback, MaxInFlight: s.InFlight,
	}, nil)
	if err != nil {
		return at{}, err
	}
	topics := s.topics()
	wait, err := s.consume(sub, topics, tally)
	if err != nil {
		return at{}, errors.Join(err, sub.Close())
	}
	addr, err := sub.Addr(topics[0])
	if err != nil {
		return at{}, errors.Join(err, sub.Close())
	}
	return at{addr.String(), ends{sub.Close, wait}}, nil
}

// Declarer listens, and returns what declares the turn's topics there.
func (s Setup) Declarer() (declare, stop func() error, err error) {
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{ListenAddress: loopback}, nil)
	if err != nil {
		return nil, nil, err
	}
	if _, err := sub.Addr(s.Name); err != nil {
		return nil, nil, err
	}
	return func() error {
		for _, topic := range s.topics() {
			if err := sub.SubscribeInitialize(topic); err != nil {
				return err
			}
		}
		return nil
	}, sub.Close, nil
}
