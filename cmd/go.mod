module github.com/buffstreams/watermill-buffstreams/cmd

go 1.25.0

require (
	github.com/HdrHistogram/hdrhistogram-go v1.4.0
	github.com/ThreeDotsLabs/watermill v1.5.1
	github.com/buffstreams/watermill-buffstreams v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/amqp v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/kafka v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/nats v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/outboxes v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/postgres v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/engines/redis v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/monitor v0.0.0-00010101000000-000000000000
	github.com/guptarohit/asciigraph v0.10.0
	github.com/schollz/progressbar/v3 v3.19.1
	github.com/spf13/cobra v1.10.2
	github.com/stretchr/testify v1.12.1
	golang.org/x/term v0.44.0
)

require (
	github.com/Rican7/retry v0.3.1 // indirect
	github.com/ThreeDotsLabs/watermill-redisstream v1.4.5 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/dgryski/go-rendezvous v0.0.0-20200823014737-9f7001d12a5f // indirect
	github.com/golang/protobuf v1.5.4 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/pgx/v5 v5.13.0 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/klauspost/compress v1.19.2 // indirect
	github.com/nats-io/nats.go v1.53.1 // indirect
	github.com/nats-io/nkeys v0.4.15 // indirect
	github.com/nats-io/nuid v1.0.1 // indirect
	github.com/pierrec/lz4/v4 v4.1.26 // indirect
	github.com/rabbitmq/amqp091-go v1.16.0 // indirect
	github.com/redis/go-redis/v9 v9.12.1 // indirect
	github.com/twmb/franz-go v1.21.7 // indirect
	github.com/twmb/franz-go/pkg/kadm v1.18.0 // indirect
	github.com/twmb/franz-go/pkg/kmsg v1.13.1 // indirect
	github.com/vmihailenco/msgpack v4.0.4+incompatible // indirect
	golang.org/x/crypto v0.50.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/text v0.41.0 // indirect
	google.golang.org/appengine v1.6.8 // indirect
)

require (
	github.com/armon/go-metrics v0.4.1 // indirect
	github.com/buffstreams/watermill-buffstreams/storage v0.0.0-00010101000000-000000000000
	github.com/cenkalti/backoff/v5 v5.0.3 // indirect
	github.com/fatih/color v1.9.0 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/hashicorp/go-hclog v0.14.1 // indirect
	github.com/hashicorp/go-immutable-radix v1.3.0 // indirect
	github.com/hashicorp/go-msgpack v1.1.5 // indirect
	github.com/hashicorp/golang-lru v0.5.4 // indirect
	github.com/hashicorp/raft v1.4.0 // indirect
	github.com/hashicorp/raft-wal v0.4.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/lithammer/shortuuid/v3 v3.0.7 // indirect
	github.com/mattn/go-colorable v0.1.6 // indirect
	github.com/mattn/go-isatty v0.0.22 // indirect
	github.com/mitchellh/colorstring v0.0.0-20190213212951-d06e56a500db // indirect
	github.com/oklog/ulid v1.3.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/rivo/uniseg v0.4.7 // indirect
	github.com/sony/gobreaker v1.0.0 // indirect
	github.com/spf13/pflag v1.0.10
	go.etcd.io/bbolt v1.5.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/sys v0.46.0 // indirect
	google.golang.org/protobuf v1.36.12
)

replace github.com/buffstreams/watermill-buffstreams => ../

replace github.com/buffstreams/watermill-buffstreams/storage => ../storage

replace github.com/buffstreams/watermill-buffstreams/monitor => ../monitor

replace github.com/buffstreams/watermill-buffstreams/engines => ../engines

replace github.com/buffstreams/watermill-buffstreams/engines/kafka => ../engines/kafka

replace github.com/buffstreams/watermill-buffstreams/engines/nats => ../engines/nats

replace github.com/buffstreams/watermill-buffstreams/engines/redis => ../engines/redis

replace github.com/buffstreams/watermill-buffstreams/engines/amqp => ../engines/amqp

replace github.com/buffstreams/watermill-buffstreams/engines/postgres => ../engines/postgres

replace github.com/buffstreams/watermill-buffstreams/engines/outboxes => ../engines/outboxes
