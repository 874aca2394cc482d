//go:build linux

package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/storage/dedupe"
	"github.com/buffstreams/watermill-buffstreams/store"
)

// key is what messages are kept in order by where several are in flight.
func key(number uint64) string { return strconv.FormatUint(number%5, 10) }

// content is what a message says.
type content struct {
	publisher, topic string
	number           uint64
}

func parse(msg *message.Message) (c content, err error) {
	_, err = fmt.Sscan(string(msg.Payload), &c.publisher, &c.topic, &c.number)
	return c, err
}

// effect is what a handler does. It is done for good when it returns.
type effect func(*message.Message, content) error

// report writes the effect into the pipe to the parent.
func report(_ *message.Message, c content) error {
	say("handled %s %s %d", c.publisher, c.topic, c.number)
	return nil
}

// remember opens what a subscriber knows of its earlier lives, and the effect that goes with it.
func remember(a assignment) (known store.DedupeStore, done io.Closer, do effect, err error) {
	switch a.Memory {
	case inStore:
		s, err := dedupe.Open(filepath.Join(a.Dir, "dedupe"))
		return s, s, report, err
	case withEffect:
		l, err := openLedger(a.Dir)
		return l, l, l.commit, err
	}
	return nil, io.NopCloser(nil), report, nil
}

// subscribe handles the messages of every topic until there is an order.
func subscribe(a assignment, logger watermill.LoggerAdapter) error {
	orders := orders()
	known, done, do, err := remember(a)
	if err != nil {
		return err
	}
	cfg := buffstreams.SubscriberConfig{
		ConsumerGroup: "crash", MaxInFlight: a.MaxInFlight,
		ManagerConfig: buffstreams.ManagerConfig{Acked: buffstreams.AckedConfig{Dedupe: known}},
	}
	if a.MaxInFlight > 1 {
		cfg.Key = func(msg *message.Message) string {
			c, err := parse(msg)
			if err != nil {
				return ""
			}
			return c.publisher + key(c.number)
		}
	}
	sub, err := buffstreams.NewSubscriber(cfg, logger)
	if err != nil {
		return err
	}
	failed := make(chan error, len(topics)*a.MaxInFlight)
	var handlers sync.WaitGroup
	for _, topic := range topics {
		messages, err := sub.Subscribe(context.Background(), a.Address+"/"+topic)
		if err != nil {
			return err
		}
		for range a.MaxInFlight {
			handlers.Go(func() { failed <- handle(messages, topic, do) }) // ends with Close
		}
	}
	say("ready")
	select {
	case <-orders:
	case err := <-failed:
		return err
	}
	err = sub.Close()
	handlers.Wait()
	for range cap(failed) {
		err = errors.Join(err, <-failed)
	}
	return errors.Join(err, done.Close())
}

// handle does the effect of each message, then acks it. It dawdles before either, so that kills hit there.
func handle(messages <-chan *message.Message, topic string, do effect) error {
	for msg := range messages {
		c, err := parse(msg)
		if err == nil && c.topic != topic {
			err = fmt.Errorf("crash: a message to %q came to %q", c.topic, topic)
		}
		if err != nil {
			return err
		}
		dawdle()
		if err := do(msg, c); err != nil {
			return err
		}
		dawdle()
		msg.Ack()
	}
	return nil
}

func dawdle() {
	if rand.IntN(4) == 0 {
		<-time.After(time.Duration(rand.Int64N(int64(time.Millisecond))))
	}
}
