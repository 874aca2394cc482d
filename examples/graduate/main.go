// Command graduate is an application that moves from one process to a cluster without a change: a shop that takes
// orders. The front places orders and sends mails, the worker books them. ENGINE is the URL of the engine, ROLE is all,
// front or worker.
//
//	ENGINE=gochannel: ROLE=all go run .
//
// README.md has the other steps.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/buffstreams/watermill-buffstreams/engines"
	"github.com/buffstreams/watermill-buffstreams/engines/amqp"
	"github.com/buffstreams/watermill-buffstreams/engines/kafka"
	"github.com/buffstreams/watermill-buffstreams/engines/nats"
	"github.com/buffstreams/watermill-buffstreams/engines/outboxes"
	"github.com/buffstreams/watermill-buffstreams/engines/postgres"
	"github.com/buffstreams/watermill-buffstreams/engines/redis"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "graduate:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func run(ctx context.Context) error {
	s, err := readSettings()
	if err != nil {
		return err
	}
	engine, err := engines.OpenWith(ctx, s.engine, engines.Options{
		Drivers: []engines.Driver{nats.Driver, kafka.Driver, redis.Driver, amqp.Driver, postgres.Driver}, OpenOutbox: outboxes.Open,
		Logger: watermill.NewStdLogger(false, false), // what keeps the engine from working
	})
	if err != nil {
		return err
	}
	logger := watermill.NopLogger{} // handlers fail on purpose
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, logger)
	if err != nil {
		return err
	}
	shop := &shop{engine: engine, router: router, logger: logger}
	if err := shop.addHandlers(s.role); err != nil {
		return errors.Join(err, engine.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- router.Run(ctx) }() // ends with ctx or router.Close
	select {
	case <-router.Running():
	case err := <-ended:
		return errors.Join(err, engine.Close())
	}
	fmt.Println("running")
	if s.role == "worker" {
		return errors.Join(<-ended, engine.Close())
	}
	err = shop.placeOrders(ctx, s.orders)
	if err == nil {
		err = shop.await(ctx, s.orders)
	}
	return errors.Join(err, router.Close(), engine.Close())
}

// settings are what the environment says.
type settings struct {
	engine, role string
	orders       int
}

func readSettings() (s settings, err error) {
	s = settings{engine: os.Getenv("ENGINE"), role: cmp.Or(os.Getenv("ROLE"), "all")}
	orders := cmp.Or(os.Getenv("ORDERS"), "20")
	s.orders, err = strconv.Atoi(orders)
	switch {
	case s.engine == "":
		return s, errors.New("ENGINE is not set: it is the URL of an engine, such as gochannel: or tcp://host:port")
	case !slices.Contains([]string{"all", "front", "worker"}, s.role):
		return s, fmt.Errorf("ROLE is all, front or worker, not %q", s.role)
	case strings.HasPrefix(s.engine, "gochannel:") && s.role != "all":
		return s, fmt.Errorf("GoChannel is in one process, which needs ROLE=all, not %s", s.role)
	case err != nil || s.orders < 0:
		return s, fmt.Errorf("ORDERS is a number, not %q", orders)
	}
	return s, nil
}
