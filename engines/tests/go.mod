module github.com/buffstreams/watermill-buffstreams/engines/tests

go 1.25.0

require (
	github.com/ThreeDotsLabs/watermill v1.5.1
	github.com/buffstreams/watermill-buffstreams v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/amqp v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/kafka v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/nats v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/postgres v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/redis v0.0.0-00010101000000-000000000000
	github.com/jackc/pgx/v5 v5.13.0
	github.com/nats-io/nats-server/v2 v2.14.5
	github.com/nats-io/nats.go v1.53.1
	github.com/rabbitmq/amqp091-go v1.16.0
	github.com/redis/go-redis/v9 v9.12.1
	github.com/stretchr/testify v1.12.1
	github.com/twmb/franz-go v1.21.7
	github.com/twmb/franz-go/pkg/kfake v0.0.0-20260515175617-8268a5d078c0
	github.com/twmb/franz-go/pkg/kmsg v1.13.1
)

require (
	github.com/Rican7/retry v0.3.1 // indirect
	github.com/ThreeDotsLabs/watermill-redisstream v1.4.5 // indirect
	github.com/antithesishq/antithesis-sdk-go v0.7.2-default-no-op // indirect
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/dgryski/go-rendezvous v0.0.0-20200823014737-9f7001d12a5f // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/klauspost/compress v1.19.2 // indirect
	github.com/lithammer/shortuuid/v3 v3.0.7 // indirect
	github.com/minio/highwayhash v1.0.4 // indirect
	github.com/nats-io/jwt/v2 v2.8.2 // indirect
	github.com/nats-io/nkeys v0.4.16 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	github.com/oklog/ulid v1.3.1 // indirect
	github.com/pierrec/lz4/v4 v4.1.26 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/sony/gobreaker v1.0.0 // indirect
	github.com/twmb/franz-go/pkg/kadm v1.18.0 // indirect
	github.com/vmihailenco/msgpack v4.0.4+incompatible // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/crypto v0.55.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.41.0 // indirect
	golang.org/x/time v0.15.0 // indirect
	google.golang.org/appengine v1.6.8 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace (
	github.com/buffstreams/watermill-buffstreams => ../../
	github.com/buffstreams/watermill-buffstreams/engines => ../
	github.com/buffstreams/watermill-buffstreams/engines/amqp => ../amqp
	github.com/buffstreams/watermill-buffstreams/engines/kafka => ../kafka
	github.com/buffstreams/watermill-buffstreams/engines/nats => ../nats
	github.com/buffstreams/watermill-buffstreams/engines/postgres => ../postgres
	github.com/buffstreams/watermill-buffstreams/engines/redis => ../redis
)
