module github.com/buffstreams/watermill-buffstreams/engines/postgres

go 1.25.0

require (
	github.com/ThreeDotsLabs/watermill v1.5.1
	github.com/buffstreams/watermill-buffstreams/engines v0.0.0-00010101000000-000000000000
	github.com/jackc/pgx/v5 v5.13.0
)

require (
	github.com/buffstreams/watermill-buffstreams v0.0.0-00010101000000-000000000000 // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/lithammer/shortuuid/v3 v3.0.7 // indirect
	github.com/oklog/ulid v1.3.1 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)

replace (
	github.com/buffstreams/watermill-buffstreams => ../../
	github.com/buffstreams/watermill-buffstreams/engines => ../
)
