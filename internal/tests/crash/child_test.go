//go:build linux

package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/outbox"
)

// runChild does what an assignment says until the parent tells it to finish, or kills it.
func runChild(told string) error {
	var a assignment
	if err := json.Unmarshal([]byte(told), &a); err != nil {
		return err
	}
	logger := watermill.NewStdLogger(false, false)
	if a.Role == "subscriber" {
		return subscribe(a, logger)
	}
	return publish(a, logger)
}

// say tells the parent something. It is one write of less than PIPE_BUF bytes: the parent gets all of it or nothing.
func say(format string, args ...any) {
	if _, err := fmt.Fprintf(os.Stdout, format+"\n", args...); err != nil {
		os.Exit(1) // there is no parent
	}
}

// orders returns a channel that tells of each line from the parent.
func orders() <-chan struct{} {
	given := make(chan struct{})
	go func() { // ends with the process
		in := bufio.NewReader(os.Stdin)
		for {
			if _, err := in.ReadString('\n'); err != nil {
				os.Exit(1) // the parent is gone, and nobody else would end this process
			}
			given <- struct{}{}
		}
	}()
	return given
}

const (
	pace      = 500 * time.Microsecond // between two calls of Publish to a topic
	backlog   = 64                     // messages pending in a topic at which a publisher waits
	batchSize = 4                      // messages of a call, at most
)

// publish sends numbered messages to each topic and says which of them are confirmed. The first order is to let nothing
// be pending, the second to send a little more and to end.
func publish(a assignment, logger watermill.LoggerAdapter) error {
	orders := orders()
	ob, err := outbox.Open(outbox.Config{Dir: a.Dir, SegmentBytes: 32 << 10}) // small, so that segments come and go
	if err != nil {
		return err
	}
	pub, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Outbox: ob,
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{
			Reconnect: &buffstreams.ReconnectConfig{InitialInterval: 5 * time.Millisecond, MaxInterval: 20 * time.Millisecond},
		}},
	}, logger)
	if err != nil {
		return err
	}
	say("ready")
	var senders []*sender
	for i, topic := range topics {
		senders = append(senders, &sender{pub: pub, outbox: ob, name: a.Name, address: a.Address, topic: topic, next: a.Next[i]})
	}
	if err := sendAll(senders, orders); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := pub.Drain(ctx); err != nil {
		return fmt.Errorf("crash: %w; the outbox holds %+v", err, ob.Streams())
	}
	say("rested")
	<-orders
	for _, s := range senders {
		if err := s.send(); err != nil {
			return err
		}
	}
	if err := pub.Drain(ctx); err != nil {
		return fmt.Errorf("crash: after a rest: %w; the outbox holds %+v", err, ob.Streams())
	}
	return errors.Join(pub.Close(), ob.Close())
}

// sendAll lets all senders send until there is an order, or one fails.
func sendAll(senders []*sender, orders <-chan struct{}) error {
	failed := make(chan error, len(senders))
	stop := make(chan struct{})
	var flows sync.WaitGroup
	for _, s := range senders {
		flows.Go(func() { // ends with stop
			if err := s.keepSending(stop); err != nil {
				failed <- err
			}
		})
	}
	select {
	case <-orders:
	case err := <-failed:
		return err // and the process ends
	}
	close(stop)
	flows.Wait()
	close(failed)
	return <-failed
}
