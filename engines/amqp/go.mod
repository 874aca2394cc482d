module github.com/buffstreams/watermill-buffstreams/engines/amqp

go 1.25.0

require (
	github.com/ThreeDotsLabs/watermill v1.5.1
	github.com/buffstreams/watermill-buffstreams/engines v0.0.0-00010101000000-000000000000
	github.com/rabbitmq/amqp091-go v1.16.0
)

require (
	github.com/buffstreams/watermill-buffstreams v0.0.0-00010101000000-000000000000 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/lithammer/shortuuid/v3 v3.0.7 // indirect
	github.com/oklog/ulid v1.3.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
)

replace (
	github.com/buffstreams/watermill-buffstreams => ../../
	github.com/buffstreams/watermill-buffstreams/engines => ../
)
