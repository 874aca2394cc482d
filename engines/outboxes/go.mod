module github.com/buffstreams/watermill-buffstreams/engines/outboxes

go 1.25.0

require (
	github.com/buffstreams/watermill-buffstreams v0.0.0-00010101000000-000000000000
	github.com/buffstreams/watermill-buffstreams/storage v0.0.0-00010101000000-000000000000
)

require (
	github.com/armon/go-metrics v0.4.1 // indirect
	github.com/fatih/color v1.9.0 // indirect
	github.com/hashicorp/go-hclog v0.14.1 // indirect
	github.com/hashicorp/go-immutable-radix v1.3.0 // indirect
	github.com/hashicorp/go-msgpack v1.1.5 // indirect
	github.com/hashicorp/golang-lru v0.5.4 // indirect
	github.com/hashicorp/raft v1.4.0 // indirect
	github.com/hashicorp/raft-wal v0.4.0 // indirect
	github.com/mattn/go-colorable v0.1.6 // indirect
	github.com/mattn/go-isatty v0.0.12 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	golang.org/x/sys v0.45.0 // indirect
)

replace (
	github.com/buffstreams/watermill-buffstreams => ../../
	github.com/buffstreams/watermill-buffstreams/storage => ../../storage
)
