module github.com/buffstreams/watermill-buffstreams/benchmarks

go 1.25
