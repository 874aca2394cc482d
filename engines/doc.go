// Package engines opens the engine of a URL as a Watermill Pub/Sub: this library, GoChannel, and with the driver of its
// module NATS JetStream, Kafka, Redis Streams, RabbitMQ or PostgreSQL.
//
//	engine, err := engines.Open(ctx, os.Getenv("PUBSUB"), nats.Driver, kafka.Driver)
//
// An application moves from one to another by the URL alone. The parameters that all have in common mean the same with
// each; what an engine cannot do is an error of Open. docs/engines.md has the table.
package engines
