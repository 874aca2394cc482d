package peers

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	whttp "github.com/ThreeDotsLabs/watermill-http/v2/pkg/http"

	"github.com/buffstreams/watermill-buffstreams/benchmarks/internal/measure"
)

// HTTP is watermill-http: a request a message, answered when the handler has acked it.
var HTTP = Peer{
	Name: "HTTP", Guarantee: "its handler has acked it",
	Settings: "defaults; a client that keeps as many connections as there are publishers, without compression",
	Receive:  receiveHTTP,
	Dial: func(s Setup, to Receiver) (Sender, error) {
		client := &http.Client{Transport: &http.Transport{
			MaxIdleConns: 256, MaxIdleConnsPerHost: 256, DisableCompression: true,
		}}
		pub, err := whttp.NewPublisher(whttp.PublisherConfig{
			MarshalMessageFunc: whttp.DefaultMarshalMessageFunc, Client: client,
		}, nil)
		if err != nil {
			return nil, err
		}
		return s.publishing(pub, []string{"http://" + to.Address() + "/" + s.Name}, func() error {
			client.CloseIdleConnections()
			return nil
		}), nil
	},
}

func receiveHTTP(s Setup, tally *measure.Tally) (Receiver, error) {
	sub, err := whttp.NewSubscriber(loopback, whttp.SubscriberConfig{}, nil)
	if err != nil {
		return nil, err
	}
	wait, err := s.consume(sub, []string{"/" + s.Name}, tally)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	wg.Go(func() { failed <- sub.StartHTTPServer() }) // ends when the subscriber is closed
	address, err := awaitAddress(sub, failed)
	if err != nil {
		return nil, err
	}
	return at{address.String(), ends{sub.Close, wait, func() error { wg.Wait(); return nil }}}, nil
}

// awaitAddress polls: the subscriber tells nobody when it listens.
func awaitAddress(sub interface{ Addr() net.Addr }, failed <-chan error) (net.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if a := sub.Addr(); a != nil {
			return a, nil
		}
		select {
		case err := <-failed:
			return nil, err
		case <-ctx.Done():
			return nil, errors.New("peers: the HTTP server did not start to listen")
		case <-time.After(time.Millisecond):
		}
	}
}
