//go:build unix

// Batches into PostgreSQL: an insert of many rows costs about as much as one of a single row. The program starts a
// server of its own in a temporary directory, and compares with one row at a time. Figures go to standard error.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/lib/pq"

	buffstreams "github.com/buffstreams/watermill-buffstreams"
	"github.com/buffstreams/watermill-buffstreams/batch"
	"github.com/buffstreams/watermill-buffstreams/route"
)

const (
	inFlight = 256
	size     = inFlight / 2 // the next batch gathers while one is inserted
	count    = 2000
)

var logger = watermill.NopLogger{}

// handler handles a subscription until it ends.
type handler func(db *sql.DB, messages <-chan *message.Message)

func main() {
	server, err := startPostgres()
	if errors.Is(err, errNoPostgres) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(skipped)
	}
	check(err)
	defer server.stop()
	db, err := sql.Open("postgres", server.dsn)
	check(err)
	defer func() { _ = db.Close() }()
	db.SetMaxIdleConns(inFlight)

	each := measure(db, "one by one", oneByOne)
	measure(db, "32 side by side", sideBySide)
	batches := measure(db, "batches", inBatches)
	fmt.Printf("batches are at least 3 times as fast as one by one: %v\n", each >= 3*batches)
}

// measure sends messages through a handler into an empty table, and returns how long that took.
func measure(db *sql.DB, name string, handle handler) time.Duration {
	_, err := db.Exec("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id text PRIMARY KEY, payload text NOT NULL)")
	check(err)
	subscriber, err := buffstreams.NewSubscriber(buffstreams.SubscriberConfig{
		ListenAddress: "127.0.0.1:0", ConsumerGroup: "store", MaxInFlight: inFlight,
	}, logger)
	check(err)
	messages, err := subscriber.Subscribe(context.Background(), "orders")
	check(err)
	bound, err := subscriber.Addr("orders")
	check(err)
	publisher, err := buffstreams.NewPublisher(buffstreams.PublisherConfig{
		Resolver: route.To(bound.String()), Confirm: buffstreams.ConfirmEnqueued,
	}, logger)
	check(err)
	ended := make(chan struct{})
	go func() { handle(db, messages); close(ended) }()

	began := time.Now()
	for i := range count {
		check(publisher.Publish("orders", message.NewMessage(watermill.NewUUID(), fmt.Append(nil, i))))
	}
	check(publisher.Drain(context.Background()))
	took := time.Since(began)

	check(publisher.Close())
	check(subscriber.Close())
	<-ended
	var rows int
	check(db.QueryRow("SELECT count(*) FROM orders").Scan(&rows))
	fmt.Printf("%s: %d rows\n", name, rows)
	fmt.Fprintf(os.Stderr, "%s: %.0f messages/s\n", name, count/took.Seconds())
	return took
}

// insert is idempotent: a message that comes again changes nothing.
func insert(ctx context.Context, db *sql.DB, msgs []*message.Message) error {
	ids, payloads := make([]string, len(msgs)), make([]string, len(msgs))
	for i, m := range msgs {
		ids[i], payloads[i] = m.UUID, string(m.Payload)
	}
	_, err := db.ExecContext(ctx, "INSERT INTO orders SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING",
		pq.Array(ids), pq.Array(payloads))
	return err
}

func inBatches(db *sql.DB, messages <-chan *message.Message) {
	check(batch.Run(context.Background(), messages, func(ctx context.Context, msgs []*message.Message) error {
		return insert(ctx, db, msgs)
	}, batch.Config{Size: size, Logger: logger}))
}

func oneByOne(db *sql.DB, messages <-chan *message.Message) {
	for m := range messages {
		if err := insert(m.Context(), db, []*message.Message{m}); err != nil {
			m.Nack()
			continue
		}
		m.Ack()
	}
}

// sideBySide is oneByOne on many connections, which keeps no order.
func sideBySide(db *sql.DB, messages <-chan *message.Message) {
	var workers sync.WaitGroup
	for range 32 {
		workers.Go(func() { oneByOne(db, messages) })
	}
	workers.Wait()
}

func check(err error) {
	if err != nil {
		log.Panic(err) // so that the server is stopped
	}
}
