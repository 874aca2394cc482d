// Command graduate is an application that moves from one process to a cluster without a change: a shop that takes orders. The
// front places orders and sends mails, the worker books them. ENGINE is the URL of the engine, ROLE is all, front or worker.
//
//	ENGINE=gochannel: ROLE=all go run .
//
// README.md has the other steps.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
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
	logger := watermill.NopLogger{}
	engine, err := engines.OpenWith(ctx, os.Getenv("ENGINE"), engines.Options{
		Drivers: []engines.Driver{nats.Driver, kafka.Driver, redis.Driver, amqp.Driver, postgres.Driver}, OpenOutbox: outboxes.Open,
		Logger: watermill.NopLogger{},
	})
	if err != nil {
		return err
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 10 * time.Second}, logger)
	if err != nil {
		return err
	}
	shop := &shop{engine: engine, router: router, logger: watermill.NopLogger{}}
	role := os.Getenv("ROLE")
	if err := shop.addHandlers(role); err != nil {
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
	if role != "worker" {
		n, err := strconv.Atoi(os.Getenv("ORDERS"))
		if err != nil {
			n = 20
		}
		if err := shop.placeOrders(ctx, n); err != nil {
			return errors.Join(err, router.Close(), engine.Close())
		}
		if err := shop.await(ctx, n); err != nil {
			return errors.Join(err, router.Close(), engine.Close())
		}
		return errors.Join(router.Close(), engine.Close())
	}
	return errors.Join(<-ended, engine.Close())
}
