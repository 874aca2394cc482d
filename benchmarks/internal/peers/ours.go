package peers

import (
	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
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
			pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
				ManagerConfig: s.manager(), Confirm: confirm, Resolver: route.To(to.Address()),
			}, nil)
			if err != nil {
				return nil, err
			}
			return s.publishing(pub, s.topics()), nil
		},
	}
}

// manager makes room for messages that are larger than the default limit.
func (s Setup) manager() (cfg buffstreams.ManagerConfig) {
	if s.Size >= 1<<20 {
		cfg.Acked.MaxMessageSize = s.Size + 4<<10
	}
	return cfg
}

func receiveOurs(s Setup, tally *measure.Tally) (Receiver, error) {
	cfg := s.manager()
	cfg.Acked.MaxConnectionsPerHost = pool.Unlimited // all publishers of a benchmark are on one
	sub, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ManagerConfig: cfg, ListenAddress: loopback, MaxInFlight: s.InFlight,
	}, nil)
	if err != nil {
		return nil, err
	}
	topics := s.topics()
	wait, err := s.consume(sub, topics, tally)
	if err != nil {
		return nil, err
	}
	addr, err := sub.Addr(topics[0])
	if err != nil {
		return nil, err
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
