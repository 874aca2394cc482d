package peers

import (
	"errors"

	wnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// natsWindow keeps NATS core from dropping what its subscriber does not take in time.
const natsWindow = 16384

// NATSCore is watermill-nats without JetStream. The publisher, the server and the subscriber have a connection each
// way.
var NATSCore = Peer{
	Name: "NATS core", Guarantee: "none: the client buffers it; what the server cannot hand on at once is dropped",
	Settings: "defaults, JetStream disabled; nats-server embedded beside the subscriber unless said otherwise", Window: natsWindow,
	Receive: func(s Setup, tally *measure.Tally) (Receiver, error) {
		return s.receiveNATS(tally, wnats.JetStreamConfig{Disabled: true})
	},
	Dial: func(s Setup, to Receiver) (Sender, error) {
		return s.dialNATS(to, wnats.JetStreamConfig{Disabled: true})
	},
}

// StartNATS starts a server; with a directory it has JetStream.
func StartNATS(dir string) (address string, stop func() error, err error) {
	s, stop, err := startNATS(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: dir != "", StoreDir: dir,
	})
	if err != nil {
		return "", nil, err
	}
	return s.ClientURL(), stop, nil
}

func startNATS(options *server.Options) (s *server.Server, stop func() error, err error) {
	if s, err = server.NewServer(options); err != nil {
		return nil, nil, err
	}
	s.Start()
	stop = func() error {
		s.Shutdown()
		s.WaitForShutdown()
		return nil
	}
	if !s.ReadyForConnections(patience) {
		return nil, nil, errors.Join(errors.New("peers: the NATS server did not become ready"), stop())
	}
	return s, stop, nil
}

// natsServer returns the address of the turn's NATS server, which it starts where there is none.
func (s Setup) natsServer() (string, func() error, error) {
	if s.Broker != "" {
		return s.Broker, func() error { return nil }, nil
	}
	return StartNATS(s.Dir)
}

func (s Setup) receiveNATS(tally *measure.Tally, js wnats.JetStreamConfig) (Receiver, error) {
	address, stop, err := s.natsServer()
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect(address)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	end, err := s.receiveFrom(conn, stop, tally, js)
	return at{address, end}, err
}

// receiveFrom consumes over a connection. stop is called last, or at once with an error.
func (s Setup) receiveFrom(conn *nats.Conn, stop func() error, tally *measure.Tally, js wnats.JetStreamConfig) (ends, error) {
	cfg := wnats.SubscriberConfig{JetStream: js, QueueGroupPrefix: s.Name, SubjectCalculator: wnats.DefaultSubjectCalculator}
	sub, err := wnats.NewSubscriberWithNatsConn(conn, cfg.GetSubscriberSubscriptionConfig(), nil)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	wait, err := s.consume(sub, s.topics(), tally)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	// Until the server has answered this, what others publish may be dropped: it does not know of the subscription yet.
	return ends{sub.Close, wait, stop}, conn.Flush()
}

func (s Setup) dialNATS(to Receiver, js wnats.JetStreamConfig) (Sender, error) {
	pub, err := wnats.NewPublisher(wnats.PublisherConfig{URL: to.Address(), JetStream: js}, nil)
	if err != nil {
		return nil, err
	}
	return s.publishing(pub, s.topics()), nil
}
