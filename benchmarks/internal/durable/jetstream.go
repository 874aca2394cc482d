package durable

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName = "ORDERS"
	subject    = "orders"
	patience   = 10 * time.Second
)

// JetStream is a NATS server in this process with its file store. Senders publish and wait for the server's ack.
// Without syncAlways the ack comes before the message is durable, and up to two minutes of acked messages are lost with
// the power: that is its default, shown to compare, and no peer.
func JetStream(syncAlways bool) Kind {
	return Kind{
		Open: func(dir string, senders int) (Store, error) { return openJetStream(dir, syncAlways, senders) },
		Replay: func(ctx context.Context, dir string, arrive func([]byte)) error {
			return replayJetStream(ctx, dir, syncAlways, arrive)
		},
	}
}

// jetStream has one connection, which all senders share: one for each was slower. A single sender is faster inside the
// process, several are over the socket.
type jetStream struct {
	server *server.Server
	conn   *nats.Conn
	client jetstream.JetStream
}

func openJetStream(dir string, syncAlways bool, senders int) (Store, error) {
	j, err := startJetStream(dir, syncAlways, senders)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = j.client.CreateStream(ctx, jetstream.StreamConfig{
		Name: streamName, Subjects: []string{subject}, Storage: jetstream.FileStorage,
	})
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

func startJetStream(dir string, syncAlways bool, senders int) (*jetStream, error) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
		JetStream: true, StoreDir: dir, SyncAlways: syncAlways,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	j := &jetStream{server: s}
	if !s.ReadyForConnections(patience) {
		return nil, errors.Join(errors.New("the NATS server did not become ready"), j.Close())
	}
	if err := j.connect(senders == 1); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

func (j *jetStream) connect(inProcess bool) (err error) {
	var options []nats.Option
	if inProcess {
		options = append(options, nats.InProcessServer(j.server))
	}
	if j.conn, err = nats.Connect(j.server.ClientURL(), options...); err != nil {
		return err
	}
	j.client, err = jetstream.New(j.conn)
	return err
}

func (j *jetStream) Append(ctx context.Context, message []byte) error {
	_, err := j.client.Publish(ctx, subject, message)
	return err
}

func (j *jetStream) Close() error {
	if j.conn != nil {
		j.conn.Close()
	}
	j.server.Shutdown()
	j.server.WaitForShutdown()
	return nil
}

func replayJetStream(ctx context.Context, dir string, syncAlways bool, arrive func([]byte)) (err error) {
	j, err := startJetStream(dir, syncAlways, 1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	stream, err := j.client.Stream(ctx, streamName)
	if err != nil {
		return err
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	for range stream.CachedInfo().State.Msgs {
		m, err := messages.Next(jetstream.NextMaxWait(patience))
		if err != nil {
			return fmt.Errorf("consume: %w", err)
		}
		arrive(m.Data())
	}
	return nil
}
