package peers

import (
	"errors"

	wnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// nats-server inside the program that uses it, without a socket: client and server meet over a pipe in memory. Two
// programs cannot meet so; it is what one that has outgrown GoChannel would take.
var (
	NATSEmbedded      = embedded("embedded nats-server, core", NATSCore.Guarantee, "JetStream disabled", wnats.JetStreamConfig{Disabled: true})
	JetStreamEmbedded = embedded("embedded nats-server, JetStream", JetStream.Guarantee,
		"file storage, one durable queue group, AckAsync on", wnats.JetStreamConfig{AutoProvision: true, AckAsync: true})
)

func embedded(name, guarantee, settings string, js wnats.JetStreamConfig) Peer {
	return Peer{
		Name: name, Guarantee: guarantee, Window: natsWindow, Settings: "watermill-nats, nats.InProcessServer; " + settings,
		Receive: func(s Setup, tally *measure.Tally) (Receiver, error) {
			own := js
			own.DurablePrefix = s.Name
			return s.receiveEmbedded(tally, own)
		},
		Dial: func(s Setup, to Receiver) (Sender, error) {
			local, ok := to.(inServer)
			if !ok {
				return nil, errLocal
			}
			cfg := wnats.PublisherConfig{
				URL:       nats.DefaultURL, // is not dialed
				JetStream: js, NatsOptions: inProcessServer(local.server),
			}
			cfg.JetStream.AutoProvision = false // the receiving end did
			pub, err := wnats.NewPublisher(cfg, nil)
			if err != nil {
				return nil, err
			}
			return s.publishing(pub, s.topics()), nil
		},
	}
}

// inProcessServer are the options of a connection to a server in this process. Without a handler the client prints that
// the pipe was closed, as it is at the end of each turn; a message that is lost fails the turn in any case.
func inProcessServer(s *server.Server) []nats.Option {
	return []nats.Option{nats.InProcessServer(s), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}
}

// inServer is a receiving end whose server is in this process.
type inServer struct {
	at
	server *server.Server
}

func (s Setup) receiveEmbedded(tally *measure.Tally, js wnats.JetStreamConfig) (Receiver, error) {
	options := server.Options{DontListen: true, NoLog: true, NoSigs: true, JetStream: !js.Disabled, StoreDir: s.Dir}
	srv, stop, err := startNATS(&options)
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect("", inProcessServer(srv)...)
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	to, err := s.receiveFrom(conn, stop, tally, js)
	return inServer{at{ends: to}, srv}, err
}
